/** A training step: forward, backward to what is trained, AdamW. Over one batch it is one session call. */

import { Session, type SessionOptions } from "../runtime/session.ts";
import { adamw } from "../tensor/adamw.ts";
import { type NdArray, ndarray } from "../tensor/array.ts";
import { gradients } from "../tensor/grad/gradients.ts";
import { Graph, type Value } from "../tensor/graph.ts";
import { clip, sqrt } from "../tensor/ops/elementwise.ts";
import { reduceSum } from "../tensor/ops/reduce.ts";
import { exchange, isMatrix, outputName, type TrainingState, zerosLike } from "./training-state.ts";

export interface OptimizerOptions {
  readonly beta1: number;
  readonly beta2: number;
  readonly eps: number;
  /** On matrices only; biases and norms do not decay. */
  readonly weightDecay: number;
  /** Longer gradients, all parameters together, are shortened to this length; left out, they are taken as they are. */
  readonly maxGradNorm?: number;
}

export interface StepOptions extends SessionOptions {
  /** Whether a step may consist of several batches, whose losses and gradients add up. */
  readonly accumulates?: boolean;
  /** Parts of the loss that are told beside it: scalars of the graph. */
  readonly terms?: Readonly<Record<string, Value>>;
}

export interface StepResult {
  /** Before the step. */
  readonly loss: number;
  /** Length of the gradient, all parameters together, before it is shortened. */
  readonly gradNorm: number;
  /** Parts of the loss, where the step was created with some. */
  readonly terms: Readonly<Record<string, number>>;
}

type Feeds = Readonly<Record<string, NdArray>>;
type Arrays = Record<string, NdArray<"float32">>;

/** A loss or gradient that is no number; the state is what it was before the step. */
export class NotFiniteError extends Error {
  override name = "NotFiniteError";
}

/** The compiled step of one loss. It owns the state: what a run computes takes the place of what was. */
export class TrainingStep {
  readonly state: TrainingState;
  private readonly options: OptimizerOptions;
  /** Gives the loss and either the next state, or gradients added to those given. */
  private readonly session: Session;
  /** Gives the next state from added gradients, where batches are accumulated. */
  private readonly update: Session | undefined;
  /** Arrays of the step before, which the next step writes into. */
  private readonly spare: Arrays;
  private sums: Arrays;

  private constructor(state: TrainingState, options: OptimizerOptions, session: Session, update?: Session) {
    this.state = state;
    this.options = options;
    this.session = session;
    this.update = update;
    const { parameters } = state;
    const of = (kind: "parameter" | "mean" | "variance" | "sum") =>
      Object.entries(zerosLike(parameters)).map(([name, array]) => [outputName[kind](name), array] as const);
    this.spare = Object.fromEntries([
      ...of("parameter"),
      ...of("mean"),
      ...of("variance"),
      ...(update ? of("sum") : []),
    ]);
    this.sums = update ? zerosLike(parameters) : {};
  }

  /**
   * Adds gradients and optimiser to a graph and compiles it.
   *
   * @param loss float32 scalar
   * @param trained inputs of the graph that stand for the parameters, by name
   */
  static async create(
    graph: Graph,
    loss: Value,
    trained: ReadonlyMap<string, Value>,
    state: TrainingState,
    options: OptimizerOptions,
    { accumulates = false, terms = {}, ...others }: StepOptions = {},
  ): Promise<TrainingStep> {
    // Batches of ever new shapes gain nothing from a plan, and it takes much memory.
    const session = { ...others, plansMemory: false };
    const found = gradients(loss, [...trained.values()]);
    const names = [...trained.keys()];
    const gradientOf = new Map(names.map((name, i) => [name, found[i] as Value]));
    const told = Object.fromEntries(Object.entries(terms).map(([name, term]) => [termOut(name), term]));
    if (!accumulates) {
      const outputs = { loss, ...told, ...updateOf(graph, trained, gradientOf, options) };
      return new TrainingStep(state, options, await Session.create<string>(graph, outputs, session));
    }
    const sums: Record<string, Value> = {};
    for (const [name, gradient] of gradientOf) {
      sums[outputName.sum(name)] = gradient.add(graph.input(sumIn(name), "float32", gradient.shape));
    }
    const adding = await Session.create<string>(graph, { loss, ...told, ...sums }, session);
    const second = new Graph();
    const inputs = (prefix: (name: string) => string) =>
      new Map([...trained].map(([name, { shape }]) => [name, second.input(prefix(name), "float32", shape)]));
    const outputs = updateOf(
      second,
      inputs((name) => name),
      inputs(sumIn),
      options,
    );
    return new TrainingStep(state, options, adding, await Session.create<string>(second, outputs, session));
  }

  /**
   * Takes one step.
   *
   * @param batches one, or several where the step accumulates; each is made when its turn comes
   * @throws NotFiniteError if loss or gradient is no number
   */
  async run(batches: readonly (() => Feeds | Promise<Feeds>)[], learningRate: number): Promise<StepResult> {
    const [first, ...others] = batches;
    if (!first || (others.length > 0 && !this.update)) {
      throw new Error(`This step takes one batch, but was given ${batches.length}; create it with \`accumulates\``);
    }
    return this.update
      ? this.runAccumulated(batches, this.update, learningRate)
      : this.runFused(await first(), learningRate);
  }

  async close(): Promise<void> {
    await this.session.close();
    await this.update?.close();
  }

  private async runFused(batch: Feeds, learningRate: number): Promise<StepResult> {
    const feeds = { ...batch, ...this.state.parameters, ...this.updateFeeds(learningRate) };
    const outputs = await this.session.run(feeds, this.spare);
    return this.finish(scalarOf(outputs.loss), scalarOf(outputs.gradNorm), termsOf(outputs));
  }

  private async runAccumulated(
    batches: readonly (() => Feeds | Promise<Feeds>)[],
    update: Session,
    learningRate: number,
  ): Promise<StepResult> {
    for (const { data } of Object.values(this.sums)) data.fill(0);
    let loss = 0;
    const terms: Record<string, number> = {};
    for (const batch of batches) {
      const outputs = await this.session.run(
        { ...(await batch()), ...this.state.parameters, ...this.sumFeeds() },
        this.spare,
      );
      loss += scalarOf(outputs.loss);
      for (const [name, value] of Object.entries(termsOf(outputs))) terms[name] = (terms[name] ?? 0) + value;
      for (const name of Object.keys(this.sums)) exchange(this.sums, name, this.spare, outputName.sum(name));
    }
    const feeds = { ...this.state.parameters, ...this.sumFeeds(), ...this.updateFeeds(learningRate) };
    const { gradNorm } = await update.run(feeds, this.spare);
    return this.finish(loss, scalarOf(gradNorm), terms);
  }

  /** The arrays just written become the state; the old ones are written next. */
  private finish(loss: number, gradNorm: number, terms: StepResult["terms"]): StepResult {
    for (const [what, value] of [
      ["loss", loss],
      ["length of the gradient", gradNorm],
    ] as const) {
      if (!Number.isFinite(value)) throw new NotFiniteError(`The ${what} of step ${this.state.step + 1} is ${value}`);
    }
    const { parameters, means, variances } = this.state;
    for (const name of Object.keys(parameters)) {
      exchange(parameters, name, this.spare, outputName.parameter(name));
      exchange(means, name, this.spare, outputName.mean(name));
      exchange(variances, name, this.spare, outputName.variance(name));
    }
    this.state.step += 1;
    return { loss, gradNorm, terms };
  }

  private sumFeeds(): Feeds {
    return Object.fromEntries(Object.entries(this.sums).map(([name, array]) => [sumIn(name), array]));
  }

  private updateFeeds(learningRate: number): Feeds {
    const { state, options } = this;
    const scalar = (value: number) => ndarray("float32", [], Float32Array.of(value));
    const feeds: Record<string, NdArray> = {
      learningRate: scalar(learningRate),
      correction1: scalar(1 - options.beta1 ** (state.step + 1)),
      correction2: scalar(1 - options.beta2 ** (state.step + 1)),
    };
    for (const name of Object.keys(state.parameters)) {
      feeds[meanIn(name)] = state.means[name] as NdArray;
      feeds[varianceIn(name)] = state.variances[name] as NdArray;
    }
    return feeds;
  }
}

const sumIn = (name: string) => `sum:${name}`;
const meanIn = (name: string) => `mean:${name}`;
const varianceIn = (name: string) => `variance:${name}`;

const termPrefix = "term:";
const termOut = (name: string) => `${termPrefix}${name}`;

/** The parts of the loss among a session's outputs. */
function termsOf(outputs: Feeds): Record<string, number> {
  const found = Object.entries(outputs).filter(([name]) => name.startsWith(termPrefix));
  return Object.fromEntries(found.map(([name, array]) => [name.slice(termPrefix.length), scalarOf(array)]));
}

function scalarOf(array: NdArray | undefined): number {
  return Number(array?.data[0]);
}

/** Nodes for AdamW over all parameters, and the length of the gradient. */
function updateOf(
  graph: Graph,
  parameters: ReadonlyMap<string, Value>,
  gradientOf: ReadonlyMap<string, Value>,
  options: OptimizerOptions,
): Record<string, Value> {
  const scalars = {
    learningRate: graph.input("learningRate", "float32", []),
    correction1: graph.input("correction1", "float32", []),
    correction2: graph.input("correction2", "float32", []),
  };
  const gradNorm = lengthOf([...gradientOf.values()]);
  const { maxGradNorm } = options;
  const kept = maxGradNorm === undefined ? undefined : clip(graph.scalar(maxGradNorm).div(gradNorm.add(1e-6)), 0, 1);
  const outputs: Record<string, Value> = { gradNorm };
  for (const [name, parameter] of parameters) {
    const moments = {
      mean: graph.input(meanIn(name), "float32", parameter.shape),
      variance: graph.input(varianceIn(name), "float32", parameter.shape),
    };
    const gradient = gradientOf.get(name) as Value;
    const weightDecay = isMatrix(parameter.shape) ? options.weightDecay : 0;
    const next = adamw(parameter, kept ? gradient.mul(kept) : gradient, moments, scalars, { ...options, weightDecay });
    outputs[outputName.parameter(name)] = next.parameter;
    outputs[outputName.mean(name)] = next.mean;
    outputs[outputName.variance(name)] = next.variance;
  }
  return outputs;
}

/** Square root of the sum of all squares. */
function lengthOf(values: readonly Value[]): Value {
  const squares = values.map((value) =>
    reduceSum(
      value.mul(value),
      value.shape.map((_, axis) => axis),
      { keep: false },
    ),
  );
  return sqrt(squares.reduce((sum, square) => sum.add(square)));
}
