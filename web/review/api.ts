/** The client of the server's review API. */
import type { Selection } from "../../src/curation/review.ts";
import type { DecisionResponse, Pair, PairSummary, ReviewState } from "../../src/server/review/review.ts";
import { getField, HttpError, request, type ServerOptions } from "../backend/http.ts";

export type { DecisionResponse, Pair, PairSummary, ReviewState, Selection };

export type ReviewProblem =
  /** The server does not respond or is unavailable; a retry may succeed. */
  | "away"
  /** The API key is missing or invalid. */
  | "key"
  /** Someone else has changed the text. */
  | "stale"
  | "refused";

export class ReviewError extends Error {
  override name = "ReviewError";
  readonly kind: ReviewProblem;
  /** The current pair, if a decision was stale. */
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

  /** Claims the next pair for the reviewer for a while; undefined at the end. */
  async turn(
    selection: Selection,
    options: { reviewer: string; from?: number; backwards?: boolean; skip?: readonly number[] },
  ): Promise<Pair | undefined> {
    const { pair } = await this.#json<{ pair?: Pair }>("/turn", {
      ...selection,
      ...options,
      skip: options.skip?.join(","),
    });
    return pair;
  }

  async pair(id: number, reviewer: string): Promise<Pair> {
    return (await this.#json<{ pair: Pair }>(`/entries/${id}`, { reviewer })).pair;
  }

  async image(id: number): Promise<Blob> {
    return (await this.#request(`/images/${id}`, {})).blob();
  }

  post(path: string, body: object): Promise<DecisionResponse> {
    return this.#json(
      path,
      {},
      { method: "POST", body: JSON.stringify(body), headers: { "content-type": "application/json" } },
    );
  }

  async #json<T>(path: string, query: Query, init: RequestInit = {}): Promise<T> {
    const response = await this.#request(path, query, init);
    return (await response.json().catch(() => {
      throw new ReviewError("away", "The response was interrupted");
    })) as T;
  }

  #request(path: string, query: Query, init: RequestInit = {}): Promise<Response> {
    const parameters = Object.entries(query).flatMap(([name, value]) =>
      value === undefined ? [] : [[name, String(value)]],
    );
    const pathWithQuery = parameters.length === 0 ? path : `${path}?${new URLSearchParams(parameters)}`;
    return request(`api/review${pathWithQuery}`, init, this.#server).catch((error) => {
      throw error instanceof HttpError ? toReviewError(error) : error;
    });
  }
}

type Query = Readonly<Record<string, string | number | boolean | undefined>>;

function toReviewError({ status, message, body }: HttpError): ReviewError {
  return new ReviewError(problemKind(status), message, getField(body, "current") as Pair | undefined);
}

function problemKind(status: number | undefined): ReviewProblem {
  if (status === 401) return "key";
  if (status === 409) return "stale";
  // The server, or a proxy before it, may recover from these.
  return status === undefined || status >= 500 || status === 429 ? "away" : "refused";
}
