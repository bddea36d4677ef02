/** Type-checks the code of `@example` tags as a user would write it: each is a module of its own that imports the package by name. */
import { join, relative } from "node:path";
import ts from "typescript";

const root = join(import.meta.dirname, "..", "..");

export interface DocExamples {
  /** Names of the exports that were found. */
  readonly exports: readonly string[];
  /** How many examples were compiled. */
  readonly count: number;
  /** One line for each error, with the name of the export, the file and the line. */
  readonly problems: readonly string[];
}

interface Example {
  readonly name: string;
  readonly file: string;
  /** Line of the file that the code follows. */
  readonly line: number;
  readonly code: string;
}

/**
 * Checks the exports of entry modules: classes, functions and constants need an `@example` with a fenced `ts` block, and all
 * examples of exports (including those of methods and of the entry's header) must compile.
 *
 * @param entries source files
 */
export function checkDocExamples(entries: readonly string[]): DocExamples {
  const options = compilerOptions();
  const sources = ts.createProgram([...entries], options);
  const checker = sources.getTypeChecker();
  const exports = new Map<ts.Symbol, string>();
  const examples: Example[] = [];
  const problems: string[] = [];

  for (const entry of entries) {
    const source = sources.getSourceFile(entry);
    const module = source && checker.getSymbolAtLocation(source);
    if (!module) throw new Error(`${entry} is not a module`);
    for (const exported of checker.getExportsOfModule(module)) {
      const symbol = exported.flags & ts.SymbolFlags.Alias ? checker.getAliasedSymbol(exported) : exported;
      if (exports.has(symbol)) continue;
      exports.set(symbol, exported.name);
      const declarations = symbol.declarations ?? [];
      const isValue = (symbol.flags & ts.SymbolFlags.Value) !== 0;
      const hasExample = declarations.some((node) =>
        ts.getJSDocTags(node).some((tag) => tag.tagName.text === "example"),
      );
      if (isValue && !hasExample) problems.push(`${exported.name} (${place(declarations[0])}) has no @example`);
    }
    examples.push(...findExamples("header", source, source.getFullText().indexOf("*/"), problems));
  }
  for (const [{ declarations = [] }, name] of exports) {
    for (const node of declarations) examples.push(...findExamples(name, documented(node), undefined, problems));
  }

  return {
    exports: [...exports.values()],
    count: examples.length,
    problems: [...problems, ...compile(examples, sources)],
  };
}

function compilerOptions(): ts.CompilerOptions {
  const path = join(root, "tsconfig.json");
  const { config } = ts.readConfigFile(path, ts.sys.readFile);
  const { options } = ts.parseJsonConfigFileContent({ ...config, include: [], files: ["src/index.ts"] }, ts.sys, root);
  // Examples may run in a page.
  return {
    ...options,
    lib: [...(options.lib ?? []), "lib.dom.d.ts", "lib.dom.iterable.d.ts", "lib.dom.asynciterable.d.ts"],
  };
}

/** The statement that has the comment of a constant. */
function documented(node: ts.Declaration): ts.Node {
  return ts.isVariableDeclaration(node) ? node.parent.parent : node;
}

/** The examples in the comments of a node and its members. @param end where to stop, in characters of the node's text */
function findExamples(name: string, node: ts.Node, end: number | undefined, problems: string[]): Example[] {
  const source = node.getSourceFile();
  const text = node.getFullText(source).slice(0, end);
  return [...text.matchAll(/@example\b.*?(?=\n\s*\* @|\*\/|$)/gs)].flatMap(({ index, 0: tag }) => {
    const start = node.getFullStart() + index;
    const fence = /```ts\n(?<code>.*?)\n[ *]*```/s.exec(tag);
    if (!fence) {
      problems.push(`${name} (${place(node, start)}): its @example has no block \`\`\`ts ... \`\`\``);
      return [];
    }
    const { line } = source.getLineAndCharacterOfPosition(start + fence.index);
    const code = (fence.groups?.code ?? "").replace(/^ *\* ?/gm, "");
    return [{ name, file: source.fileName, line: line + 1, code }];
  });
}

function compile(examples: readonly Example[], sources: ts.Program): string[] {
  const options = sources.getCompilerOptions();
  const modules = new Map(
    examples.map((example, i) => [join(root, "examples", `doc-example-${i}.ts`), example] as const),
  );
  const host = ts.createCompilerHost(options);
  const { getSourceFile, fileExists, readFile } = host;
  const read = (path: string) => {
    const example = modules.get(path);
    // An example without imports is a module too: it may use top-level await.
    return example && `${example.code}\nexport {};\n`;
  };
  host.fileExists = (path) => modules.has(path) || fileExists(path);
  host.readFile = (path) => read(path) ?? readFile(path);
  host.getSourceFile = (path, languageVersion, ...rest) => {
    const text = read(path);
    if (text === undefined) return sources.getSourceFile(path) ?? getSourceFile(path, languageVersion, ...rest);
    return ts.createSourceFile(path, text, languageVersion, true);
  };
  const program = ts.createProgram([...modules.keys()], options, host);
  return [...modules].flatMap(([path, { name, file, line }]) => {
    const source = program.getSourceFile(path);
    const diagnostics = [...program.getSyntacticDiagnostics(source), ...program.getSemanticDiagnostics(source)];
    return diagnostics.map(({ start = 0, messageText }) => {
      const at = line + (source?.getLineAndCharacterOfPosition(start).line ?? 0) + 1;
      return `${name} (${relative(root, file)}:${at}): ${ts.flattenDiagnosticMessageText(messageText, "\n")}`;
    });
  });
}

function place(node: ts.Node | undefined, position = node?.getStart() ?? 0): string {
  const source = node?.getSourceFile();
  if (!source) return "no declaration";
  return `${relative(root, source.fileName)}:${source.getLineAndCharacterOfPosition(position).line + 1}`;
}
