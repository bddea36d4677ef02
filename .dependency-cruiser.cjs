// The modules of docs/architecture.md, top to bottom: a module imports only from modules above it.
const modules = [
  "files",
  "tensor",
  "runtime",
  "formats",
  "hub",
  "nn",
  "images",
  "tokenizers",
  "models",
  "generation",
  "convert",
  "engine",
  "chat",
  "browser",
  "data",
  "training",
  "retrieval",
  "curation",
  "evaluation",
  "server",
  "cli",
];

module.exports = {
  forbidden: [
    { name: "no-circular", severity: "error", from: {}, to: { circular: true } },
    {
      name: "no-orphans",
      severity: "error",
      from: { orphan: true, pathNot: ["^src/index\\.ts$", "^src/cli/main\\.ts$"] },
      to: {},
    },
    ...modules.slice(0, -1).map((name, i) => ({
      name: `${name}-imports-only-from-above`,
      comment: `src/${name} may import only from: ${modules.slice(0, i + 1).join(", ")}`,
      severity: "error",
      from: { path: `^src/${name}/` },
      to: { path: `^src/(${modules.slice(i + 1).join("|")})/` },
    })),
  ],
  options: {
    tsPreCompilationDeps: true,
    tsConfig: { fileName: "tsconfig.json" },
    doNotFollow: { path: "node_modules" },
  },
};
