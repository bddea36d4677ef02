/** The interactive conversation, at a pseudo terminal that `script` (util-linux) makes. */
import { spawn, spawnSync } from "node:child_process";
import { expect, test } from "vitest";
import { isMissing } from "../helpers/capabilities.ts";
import { commandLine, image } from "../helpers/cli-command.ts";
import { temporaryFolder, tinyModel } from "../helpers/tiny-model.ts";

const model = tinyModel(temporaryFolder());
const hasScript = spawnSync("script", ["--version"]).stdout?.includes("util-linux") ?? false;

/** Types each text when what it waits for has appeared after the one before; all that was shown, and the exit code. */
function type(args: readonly string[], script: readonly [waitFor: RegExp, text: string][]) {
  const command = commandLine(args)
    .map((word) => `'${word}'`)
    .join(" ");
  const terminal = spawn("script", ["--quiet", "--flush", "--return", "--command", command, "/dev/null"]);
  return new Promise<{ shown: string; code: number | null }>((resolve) => {
    let [shown, seen, step] = ["", 0, 0];
    terminal.stdout.setEncoding("utf8").on("data", (data) => {
      shown += data;
      const [waitFor, text] = script[step] ?? [];
      const match = waitFor?.exec(shown.slice(seen));
      if (!match) return;
      seen += match.index + match[0].length;
      step++;
      terminal.stdin.write(text ?? "");
    });
    terminal.on("close", (code) => resolve({ shown, code }));
  });
}

test.skipIf(isMissing("terminal", hasScript))("Ctrl-C stops an answer, and exits at the prompt", async () => {
  const { shown, code } = await type(
    ["chat", image("cat.jpg"), "--model", model, "--max-new-tokens", "1000"],
    [
      [/> /, "What is this?\r"],
      [/What is this\?\s+\S+/, "\x03"],
      [/\(stopped\)[\s\S]*> /, "\r"],
      [/Type a question[\s\S]*> /, `/image '${image("coffee.jpg")}'\r`],
      [/Added .* to your next question[\s\S]*> /, "\x03"],
    ],
  );
  expect(shown).toContain("Type /help for help");
  expect(code).toBe(0);
});

test.skipIf(isMissing("terminal", hasScript))("streams answers; Ctrl-D exits", async () => {
  const { shown, code } = await type(
    ["chat", "--model", model, "--max-new-tokens", "5"],
    [
      [/> /, "Hello\r"],
      [/Hello\s+\S[\s\S]*> /, "\x04"],
    ],
  );
  expect(shown).toMatch(/Hello\s+\S+/);
  expect(code).toBe(0);
});
