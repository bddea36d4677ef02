/** A training step as one session call: forward, backward to what is trained, AdamW. */
import { adamw } from "../tensor/adamw.ts";
import { type NdArray, ndarray, sizeOf } from "../tensor/array.ts";
import { gradients } from "../tensor/gradients.ts";
import type { Graph, Value } from "../tensor/graph.ts";
import { Session, type SessionOptions } from "../tensor/session.ts";
import type { Recipe } from "./recipe.ts";

export interface OptimizerOptions {
  readonly beta1: number;
  readonly beta2: number;
  readonly eps: number;
  /** On matrices only; biases and norms do not decay. */
  readonly weightDecay: number;
}

/** AdamW as MiniGPT-4 sets it, with the recipe's weight decay. */
export function optimizerOf({ run }: Recipe): OptimizerOptions {
  return { beta1: 0.9, beta2: 0.999, eps: 1e-8, weightDecay: run.weight_decay };
}

/** Weights and optimiser state by name; all float32. */
export interface TrainingState {
  /** Steps that were taken. */
  step: number;
  readonly parameters: Record<string, NdArray<"float32">>;
  readonly means: Record<string, NdArray<"float32">>;
  readonly variances: Record<string, NdArray<"float32">>;
}

/** A state before the first step. */
export function initialState(parameters: Record<string, NdArray<"float32">>): TrainingState {
  const zeros = () =>
    Object.fromEntries(
      Object.entries(parameters).map(([name, { shape }]) => [
        name,
        ndarray("float32", shape, new Float32Array(sizeOf(shape))),
      ]),
    );
  return { step: 0, parameters, means: zeros(), variances: zeros() };
}

/** The compiled step of one loss. It owns the state: what a run computes takes the place of what was. */
export class TrainingStep {
  readonly state: TrainingState;
  private readonly session: Session;
  private readonly options: OptimizerOptions;
  /** Arrays of the step before, which the next step writes into. */
  private spare: Record<string, NdArray<"float32">>;

  private constructor(session: Session, state: TrainingState, options: OptimizerOptions) {
    this.session = session;
    this.state = state;
    this.options = options;
    this.spare = Object.fromEntries(
      Object.keys(state.parameters).flatMap((name) => {
        const { shape } = state.parameters[name] as NdArray<"float32">;
        const empty = () => ndarray("float32", shape, new Float32Array(sizeOf(shape)));
        return [parameterOut(name), meanOut(name), varianceOut(name)].map((output) => [output, empty()]);
      }),
    );
  }

  /**
   * Adds gradients and optimiser to a graph and compiles it.
   *
   * @param loss float32 scalar
   * @param trained inputs of the graph that stand for the parameters, by name
   * @param reported more values that each run returns
   */
  static async create(
    graph: Graph,
    loss: Value,
    trained: ReadonlyMap<string, Value>,
    state: TrainingState,
    options: OptimizerOptions,
    { reported = {}, ...session }: SessionOptions & { reported?: Readonly<Record<string, Value>> } = {},
  ): Promise<TrainingStep> {
    const outputs: Record<string, Value> = { loss, ...reported };
    const scalars = {
      learningRate: graph.input("learningRate", "float32", []),
      correction1: graph.input("correction1", "float32", []),
      correction2: graph.input("correction2", "float32", []),
    };
    const names = [...trained.keys()];
    const found = gradients(loss, [...trained.values()]);
    for (const [i, name] of names.entries()) {
      const parameter = trained.get(name) as Value;
      const moments = {
        mean: graph.input(`mean:${name}`, "float32", parameter.shape),
        variance: graph.input(`variance:${name}`, "float32", parameter.shape),
      };
      const weightDecay = isMatrix(parameter) ? options.weightDecay : 0;
      const next = adamw(parameter, found[i] as Value, moments, scalars, { ...options, weightDecay });
      outputs[parameterOut(name)] = next.parameter;
      outputs[meanOut(name)] = next.mean;
      outputs[varianceOut(name)] = next.variance;
    }
    return new TrainingStep(await Session.create<string>(graph, outputs, session), state, options);
  }

  /** Takes one step over a batch. @returns the loss before the step, and the reported values */
  async run(
    batch: Readonly<Record<string, NdArray>>,
    learningRate: number,
  ): Promise<Record<string, NdArray> & { loss: NdArray }> {
    const { state, options } = this;
    const step = state.step + 1;
    const scalar = (value: number) => ndarray("float32", [], Float32Array.of(value));
    const feeds: Record<string, NdArray> = {
      ...batch,
      learningRate: scalar(learningRate),
      correction1: scalar(1 - options.beta1 ** step),
      correction2: scalar(1 - options.beta2 ** step),
    };
    for (const name of Object.keys(state.parameters)) {
      feeds[name] = state.parameters[name] as NdArray;
      feeds[`mean:${name}`] = state.means[name] as NdArray;
      feeds[`variance:${name}`] = state.variances[name] as NdArray;
    }
    const outputs = await this.session.run(feeds, this.spare);
    for (const name of Object.keys(state.parameters)) this.exchange(name);
    state.step = step;
    return outputs as Record<string, NdArray> & { loss: NdArray };
  }

  release(): Promise<void> {
    return this.session.release();
  }

  /** The arrays just written become the state; the old ones are written next. */
  private exchange(name: string): void {
    const places = [
      [this.state.parameters, parameterOut(name)],
      [this.state.means, meanOut(name)],
      [this.state.variances, varianceOut(name)],
    ] as const;
    for (const [record, output] of places) {
      const old = record[name] as NdArray<"float32">;
      record[name] = this.spare[output] as NdArray<"float32">;
      this.spare[output] = old;
    }
  }
}

const parameterOut = (name: string) => `next:${name}`;
const meanOut = (name: string) => `nextMean:${name}`;
const varianceOut = (name: string) => `nextVariance:${name}`;

/** Weight decay is for matrices: the original leaves out what has fewer than two axes. */
function isMatrix({ shape }: Value): boolean {
  return shape.length >= 2;
}
