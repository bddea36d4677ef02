/** Asking the server's review. */
import type { Selection } from "../../src/curation/review.ts";
import type { DecisionResponse, Pair, PairSummary, ReviewState } from "../../src/server/review/review.ts";
import { AskError, askServer, field, type ServerOptions } from "../backend/ask.ts";

export type { DecisionResponse, Pair, PairSummary, ReviewState, Selection };

/** Why the server did not do what it was asked. */
export type ReviewProblem =
  /** Nobody answers, or not now: later it may work. */
  | "away"
  /** A key is needed, or the one that was given is wrong. */
  | "key"
  /** Somebody has changed the text. */
  | "stale"
  | "refused";

export class ReviewError extends Error {
  override name = "ReviewError";
  readonly kind: ReviewProblem;
  /** Of a stale decision: the pair as it is now. */
  readonly current: Pair | undefined;

  constructor(kind: ReviewProblem, message: string, current?: Pair) {
    super(message);
    this.kind = kind;
    this.current = current;
  }
}

export class ReviewApi {
  readonly #server: ServerOptions;

  constructor(server: ServerOptions = {}) {
    this.#server = server;
  }

  state(reviewer: string | undefined): Promise<ReviewState> {
    return this.#json("", { reviewer });
  }

  async list(selection: Selection, offset: number, limit: number): Promise<{ total: number; entries: PairSummary[] }> {
    return this.#json("/entries", { ...selection, offset, limit });
  }

  /** The pair to see next, which is the reviewer's for a while; undefined at the end. */
  async turn(
    selection: Selection,
    how: { reviewer: string; from?: number; backwards?: boolean; skip?: readonly number[] },
  ): Promise<Pair | undefined> {
    const { pair } = await this.#json<{ pair?: Pair }>("/turn", { ...selection, ...how, skip: how.skip?.join(",") });
    return pair;
  }

  async pair(id: number, reviewer: string): Promise<Pair> {
    return (await this.#json<{ pair: Pair }>(`/entries/${id}`, { reviewer })).pair;
  }

  async image(id: number): Promise<Blob> {
    return (await this.#ask(`/images/${id}`, {})).blob();
  }

  post(path: string, body: object): Promise<DecisionResponse> {
    return this.#json(
      path,
      {},
      { method: "POST", body: JSON.stringify(body), headers: { "content-type": "application/json" } },
    );
  }

  async #json<T>(path: string, query: Query, init: RequestInit = {}): Promise<T> {
    const response = await this.#ask(path, query, init);
    return (await response.json().catch(() => {
      throw new ReviewError("away", "The answer broke off");
    })) as T;
  }

  #ask(path: string, query: Query, init: RequestInit = {}): Promise<Response> {
    const given = Object.entries(query).flatMap(([name, value]) =>
      value === undefined ? [] : [[name, String(value)]],
    );
    const asked = given.length === 0 ? path : `${path}?${new URLSearchParams(given)}`;
    return askServer(`api/review${asked}`, init, this.#server).catch((problem) => {
      throw problem instanceof AskError ? reviewError(problem) : problem;
    });
  }
}

type Query = Readonly<Record<string, string | number | boolean | undefined>>;

function reviewError({ status, message, body }: AskError): ReviewError {
  return new ReviewError(kindOf(status), message, field(body, "current") as Pair | undefined);
}

function kindOf(status: number | undefined): ReviewProblem {
  if (status === 401) return "key";
  if (status === 409) return "stale";
  // What the server or a proxy before it cannot do now.
  return status === undefined || status >= 500 || status === 429 ? "away" : "refused";
}
