/** Commands that are loaded when they are called. */
import type { Command } from "commander";
import type { CommandContext } from "./context.ts";

/** Adds arguments, options and the action to a command. */
type DefineCommand = (command: Command, context: CommandContext) => void;

export interface LazyCommand {
  readonly name: string;
  /** One line in the list of commands. */
  readonly summary: string;
  readonly load: () => Promise<DefineCommand>;
}

/** Adds commands to a program, or to a command that has subcommands. */
export function addCommands(parent: Command, context: CommandContext, commands: readonly LazyCommand[]): void {
  for (const { name, summary } of commands) parent.command(name).summary(summary);
  parent.hook("preSubcommand", async (_, command) => {
    const found = commands.find(({ name }) => name === command.name());
    const define = await found?.load();
    define?.(command, context);
  });
}
