// The rooms of docs/architecture.md, top to bottom: a room imports only from rooms above it.
const rooms = [
  "tensor",
  "nn",
  "images",
  "text",
  "checkpoints",
  "models",
  "chat",
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
    ...rooms.slice(0, -1).map((room, i) => ({
      name: `${room}-looks-only-up`,
      comment: `src/${room} may import only from: ${rooms.slice(0, i + 1).join(", ")}`,
      severity: "error",
      from: { path: `^src/${room}/` },
      to: { path: `^src/(${rooms.slice(i + 1).join("|")})/` },
    })),
  ],
  options: {
    tsPreCompilationDeps: true,
    tsConfig: { fileName: "tsconfig.json" },
    doNotFollow: { path: "node_modules" },
  },
};
