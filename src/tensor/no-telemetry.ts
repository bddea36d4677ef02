/**
 * ONNX Runtime's telemetry is turned off, which from 1.29 on is on by default on Linux and macOS; whoever sets the variable
 * decides. Imported before a session is made.
 */
process.env.ORT_DISABLE_TELEMETRY ??= "1";
