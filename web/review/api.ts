/** Asking the server's review, with the key if there is one. */
import type { Selection } from "../../src/curation/selection.ts";
import type { Decided, ListedPair, Pair, ReviewState } from "../../src/server/review/review.ts";
import { apiKey } from "../backend/api-key.ts";

export type { Decided, ListedPair, Pair, ReviewState, Selection };

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
  readonly #base: string;
  readonly #fetch: typeof fetch;

  constructor(
    base = new URL("api/review", new URL(".", location.href)).href,
    get: typeof fetch = (...how) => fetch(...how),
  ) {
    this.#base = base;
    this.#fetch = get;
  }

  state(reviewer: string | undefined): Promise<ReviewState> {
    return this.#json("", { reviewer });
  }

  async list(selection: Selection, offset: number, limit: number): Promise<{ total: number; entries: ListedPair[] }> {
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

  async picture(id: number): Promise<Blob> {
    return (await this.#ask(`/pictures/${id}`, {})).blob();
  }

  post(path: string, body: object): Promise<Decided> {
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

  async #ask(path: string, query: Query, init: RequestInit = {}): Promise<Response> {
    const url = new URL(this.#base + path);
    for (const [name, value] of Object.entries(query)) {
      if (value !== undefined) url.searchParams.set(name, String(value));
    }
    const headers = new Headers(init.headers);
    if (apiKey.value) headers.set("authorization", `Bearer ${apiKey.value}`);
    let response: Response;
    try {
      response = await this.#fetch(url, { ...init, headers });
    } catch (cause) {
      throw new ReviewError("away", cause instanceof Error ? cause.message : String(cause));
    }
    if (!response.ok) throw await refusal(response);
    return response;
  }
}

type Query = Readonly<Record<string, string | number | boolean | undefined>>;

async function refusal(response: Response): Promise<ReviewError> {
  const body = (await response.json().catch(() => ({}))) as { error?: { message?: unknown }; current?: Pair };
  const { message } = body.error ?? {};
  const says = typeof message === "string" ? message : `The server answered ${response.status} ${response.statusText}`;
  return new ReviewError(kindOf(response.status), says, body.current);
}

function kindOf(status: number): ReviewProblem {
  if (status === 401) return "key";
  if (status === 409) return "stale";
  // What the server or a proxy before it cannot do now.
  return status >= 500 || status === 429 ? "away" : "refused";
}
