/** A training step: forward, backward to the trained weights, AdamW. Over one batch it is a single session call. */

import { Session, type SessionOptions } from "../runtime/session.ts";
import { adamw } from "../tensor/adamw.ts";
import { type NdArray, ndarray } from "../tensor/array.ts";
import { gradients } from "../tensor/grad/gradients.ts";
import { Graph, type Value } from "../tensor/graph.ts";
import { clip, sqrt } from "../tensor/ops/elementwise.ts";
import { reduceSum } from "../tensor/ops/reduce.ts";
import type { Feeds } from "./stages/stage.ts";
import { isMatrix, outputName, swap, type TrainingState, zerosLike } from "./training-state.ts";

export interface OptimizerOptions {
  readonly beta1: number;
  readonly beta2: number;
  readonly eps: number;
  /** Applies to matrices; biases and norms do not decay. */
  readonly weightDecay: number;
  /** Clips the global norm of the gradient. @default no clipping */
  readonly maxGradNorm?: number;
}

export interface StepOptions {
  readonly graph: Graph;
  /** float32 scalar of the graph. */
  readonly loss: Value;
  /** Inputs of the graph that are trained, by name. */
  readonly trained: ReadonlyMap<string, Value>;
  /** Updated in place by each step. */
  readonly state: TrainingState;
  readonly optimizer: OptimizerOptions;
  /** Whether a step may consist of several micro-batches, whose losses and gradients add up. @default false */
  readonly accumulates?: boolean;
  /** Parts of the loss to report: scalars of the graph. */
  readonly terms?: Readonly<Record<string, Value>>;
  /** What `evaluate` computes: a value that the loss depends on. */
  readonly evaluation?: Value;
  readonly session?: SessionOptions;
}

export interface StepResult {
  /** Before the update. */
  readonly loss: number;
  /** Global norm of the gradient before clipping. */
  readonly gradNorm: number;
  /** Parts of the loss, where the step was created with some. */
  readonly terms: Readonly<Record<string, number>>;
}

type Arrays = Record<string, NdArray<"float32">>;

/** The loss or gradient is not finite. The state is that before the step. */
export class NotFiniteError extends Error {
  override name = "NotFiniteError";
}

/** The compiled step of a loss. It owns the state, whose arrays it swaps with those that a step writes. */
export class TrainingStep {
  readonly state: TrainingState;
  private readonly optimizer: OptimizerOptions;
  /** Computes the loss and either the next state, or gradients added to the given ones. */
  private readonly session: Session;
  /** Computes the next state from accumulated gradients. */
  private readonly update: Session | undefined;
  /** Whether the session can skip the backward pass. */
  private readonly canEvaluate: boolean;
  /** Arrays of the previous step, which the next step writes to. */
  private readonly spare: Arrays;
  private sums: Arrays;

  private constructor(
    { state, optimizer, evaluation }: StepOptions,
    sessions: { readonly step: Session; readonly update?: Session },
  ) {
    this.state = state;
    this.optimizer = optimizer;
    this.session = sessions.step;
    this.update = sessions.update;
    this.canEvaluate = evaluation !== undefined;
    const { parameters } = state;
    const kinds = ["parameter", "mean", "variance", ...(sessions.update ? (["sum"] as const) : [])] as const;
    this.spare = Object.fromEntries(
      kinds.flatMap((kind) =>
        Object.entries(zerosLike(parameters)).map(([name, array]) => [outputName[kind](name), array]),
      ),
    );
    this.sums = sessions.update ? zerosLike(parameters) : {};
  }

  /** Adds the backward pass and the optimizer to a graph and compiles it. */
  static async create(options: StepOptions): Promise<TrainingStep> {
    const { graph, loss, trained, optimizer, accumulates = false, terms = {} } = options;
    const found = gradients(loss, [...trained.values()]);
    const gradientsByName = new Map([...trained.keys()].map((name, i) => [name, found[i] as Value]));
    const outputs: Record<string, Value> = { loss };
    for (const [name, term] of Object.entries(terms)) outputs[termOutput(name)] = term;
    if (!accumulates) {
      const updates = addUpdate(graph, trained, gradientsByName, optimizer);
      return new TrainingStep(options, { step: await createSession(options, outputs, updates) });
    }
    const added: Record<string, Value> = {};
    for (const [name, gradient] of gradientsByName) {
      added[outputName.sum(name)] = gradient.add(graph.input(sumInput(name), "float32", gradient.shape));
    }
    const step = await createSession(options, outputs, added);
    const updateGraph = new Graph();
    const parameters = new Map<string, Value>();
    const sums = new Map<string, Value>();
    for (const [name, { shape }] of trained) {
      parameters.set(name, updateGraph.input(name, "float32", shape));
      sums.set(name, updateGraph.input(sumInput(name), "float32", shape));
    }
    const next = addUpdate(updateGraph, parameters, sums, optimizer);
    const update = await Session.create<string>(updateGraph, next, { ...options.session, plansMemory: false });
    return new TrainingStep(options, { step, update });
  }

  /**
   * Takes one step.
   *
   * @param batches one micro-batch, or several where the step accumulates
   * @throws NotFiniteError if loss or gradient is not finite
   */
  run(batches: Iterable<Feeds> | AsyncIterable<Feeds>, learningRate: number): Promise<StepResult> {
    return this.update ? this.runAccumulated(batches, this.update, learningRate) : this.runFused(batches, learningRate);
  }

  /**
   * Computes the value that the step was created to evaluate, in the session that trains, without the backward pass: the
   * frozen weights are in memory once.
   * @param weights trained ones
   */
  async evaluate(batch: Feeds, weights: Feeds): Promise<NdArray> {
    if (!this.canEvaluate) throw new Error("This step was created without a value to evaluate");
    const feeds = { ...batch, ...weights, ...this.sumFeeds(), ...this.updateFeeds(0), [backwardInput]: boolean(false) };
    return (await this.session.run(feeds)).evaluation as NdArray;
  }

  async close(): Promise<void> {
    await this.session.close();
    await this.update?.close();
  }

  private async runFused(batches: Iterable<Feeds> | AsyncIterable<Feeds>, learningRate: number): Promise<StepResult> {
    let only: Feeds = {};
    let count = 0;
    for await (const batch of batches) {
      only = batch;
      count++;
    }
    checkCount(count, count === 1);
    const feeds = {
      ...only,
      ...this.state.parameters,
      ...this.updateFeeds(learningRate),
      [backwardInput]: boolean(true),
    };
    const outputs = await this.session.run(feeds, this.spare);
    return this.finish(readScalar(outputs.loss), readScalar(outputs.gradNorm), readTerms(outputs));
  }

  private async runAccumulated(
    batches: Iterable<Feeds> | AsyncIterable<Feeds>,
    update: Session,
    learningRate: number,
  ): Promise<StepResult> {
    for (const { data } of Object.values(this.sums)) data.fill(0);
    let count = 0;
    let loss = 0;
    const terms: Record<string, number> = {};
    for await (const batch of batches) {
      const feeds = { ...batch, ...this.state.parameters, ...this.sumFeeds(), [backwardInput]: boolean(true) };
      const outputs = await this.session.run(feeds, this.spare);
      loss += readScalar(outputs.loss);
      for (const [name, value] of Object.entries(readTerms(outputs))) terms[name] = (terms[name] ?? 0) + value;
      for (const name of Object.keys(this.sums)) swap(this.sums, name, this.spare, outputName.sum(name));
      count++;
    }
    checkCount(count, count > 0);
    const feeds = { ...this.state.parameters, ...this.sumFeeds(), ...this.updateFeeds(learningRate) };
    const { gradNorm } = await update.run(feeds, this.spare);
    return this.finish(loss, readScalar(gradNorm), terms);
  }

  /** Makes the arrays that were just written the state; the next step writes to the old ones. */
  private finish(loss: number, gradNorm: number, terms: StepResult["terms"]): StepResult {
    for (const [name, value] of Object.entries({ loss, "gradient norm": gradNorm })) {
      if (!Number.isFinite(value)) throw new NotFiniteError(`The ${name} of step ${this.state.step + 1} is ${value}`);
    }
    const { parameters, means, variances } = this.state;
    for (const name of Object.keys(parameters)) {
      swap(parameters, name, this.spare, outputName.parameter(name));
      swap(means, name, this.spare, outputName.mean(name));
      swap(variances, name, this.spare, outputName.variance(name));
    }
    this.state.step += 1;
    return { loss, gradNorm, terms };
  }

  private sumFeeds(): Feeds {
    return Object.fromEntries(Object.entries(this.sums).map(([name, array]) => [sumInput(name), array]));
  }

  private updateFeeds(learningRate: number): Feeds {
    const { state, optimizer } = this;
    const feeds: Record<string, NdArray> = {
      learningRate: scalar(learningRate),
      correction1: scalar(1 - optimizer.beta1 ** (state.step + 1)),
      correction2: scalar(1 - optimizer.beta2 ** (state.step + 1)),
    };
    for (const name of Object.keys(state.parameters)) {
      feeds[meanInput(name)] = state.means[name] as NdArray;
      feeds[varianceInput(name)] = state.variances[name] as NdArray;
    }
    return feeds;
  }
}

/** Whether the backward pass is computed, where a step can evaluate. */
const backwardInput = "computesBackward";
const sumInput = (name: string) => `sum:${name}`;
const meanInput = (name: string) => `mean:${name}`;
const varianceInput = (name: string) => `variance:${name}`;

const termPrefix = "term:";
const termOutput = (name: string) => `${termPrefix}${name}`;

/** The session of a step. Where it can evaluate, the outputs of the backward pass are conditional. */
function createSession(
  { graph, evaluation, session: given }: StepOptions,
  forward: Readonly<Record<string, Value>>,
  backward: Readonly<Record<string, Value>>,
): Promise<Session> {
  // Memory planning does not pay off where shapes change from batch to batch.
  const session = { ...given, plansMemory: false };
  if (!evaluation) return Session.create<string>(graph, { ...forward, ...backward }, session);
  const condition = graph.input(backwardInput, "bool", []);
  const outputs = { ...forward, evaluation };
  return Session.create<string>(graph, outputs, { ...session, conditional: { condition, outputs: backward } });
}

/** The parts of the loss among a session's outputs. */
function readTerms(outputs: Feeds): Record<string, number> {
  const terms = Object.entries(outputs).filter(([name]) => name.startsWith(termPrefix));
  return Object.fromEntries(terms.map(([name, array]) => [name.slice(termPrefix.length), readScalar(array)]));
}

function scalar(value: number): NdArray {
  return ndarray("float32", [], Float32Array.of(value));
}

function boolean(value: boolean): NdArray {
  return ndarray("bool", [], Uint8Array.of(Number(value)));
}

function readScalar(array: NdArray | undefined): number {
  return Number(array?.data[0]);
}

function checkCount(count: number, isRight: boolean): void {
  if (isRight) return;
  throw new Error(`Expected one batch, got ${count}; create the step with \`accumulates\` to take several`);
}

/** Adds AdamW over all parameters, and the global norm of the gradient. */
function addUpdate(
  graph: Graph,
  parameters: ReadonlyMap<string, Value>,
  gradientsByName: ReadonlyMap<string, Value>,
  options: OptimizerOptions,
): Record<string, Value> {
  const scalars = {
    learningRate: graph.input("learningRate", "float32", []),
    correction1: graph.input("correction1", "float32", []),
    correction2: graph.input("correction2", "float32", []),
  };
  const gradNorm = globalNorm([...gradientsByName.values()]);
  const { maxGradNorm } = options;
  const factor = maxGradNorm === undefined ? undefined : clip(graph.scalar(maxGradNorm).div(gradNorm.add(1e-6)), 0, 1);
  const outputs: Record<string, Value> = { gradNorm };
  for (const [name, parameter] of parameters) {
    const moments = {
      mean: graph.input(meanInput(name), "float32", parameter.shape),
      variance: graph.input(varianceInput(name), "float32", parameter.shape),
    };
    const gradient = gradientsByName.get(name) as Value;
    const weightDecay = isMatrix(parameter.shape) ? options.weightDecay : 0;
    const clipped = factor ? gradient.mul(factor) : gradient;
    const next = adamw(parameter, clipped, moments, scalars, { ...options, weightDecay });
    outputs[outputName.parameter(name)] = next.parameter;
    outputs[outputName.mean(name)] = next.mean;
    outputs[outputName.variance(name)] = next.variance;
  }
  return outputs;
}

/** Square root of the sum of all squares. */
function globalNorm(values: readonly Value[]): Value {
  const squares = values.map((value) =>
    reduceSum(
      value.mul(value),
      value.shape.map((_, axis) => axis),
      { keep: false },
    ),
  );
  return sqrt(squares.reduce((sum, square) => sum.add(square)));
}
