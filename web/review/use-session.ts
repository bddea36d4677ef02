/** The session of the reviewer whose name the browser keeps; it outlasts the page's changes of section. */
import { useEffect, useState } from "preact/hooks";
import { useStore } from "../shell/store.ts";
import { ReviewApi } from "./api.ts";
import { Images } from "./images.ts";
import { reviewer } from "./reviewer.ts";
import { ReviewSession } from "./session.ts";

const refreshEvery = 10_000;

export const api = new ReviewApi();
const images = new Images((id) => api.image(id));

let open: { readonly name: string; readonly session: ReviewSession } | undefined;

/** Undefined as long as the reviewer has no name. */
export function useSession(): ReviewSession | undefined {
  const name = useStore(reviewer);
  return name === undefined ? undefined : sessionOf(name);
}

function sessionOf(name: string): ReviewSession {
  if (open?.name === name) return open.session;
  open?.session.close();
  const session = new ReviewSession(api, name, { kept: storage() });
  session.ahead.soon = ({ id }) => void images.url(id).catch(() => {});
  open = { name, session };
  void session.open();
  return session;
}

/** Keeps what is shown up to date while it is looked at. */
export function useRefresh(session: ReviewSession): void {
  useEffect(() => {
    const refresh = () => {
      // Who is away is seen by what is sent, and by the next pair.
      if (document.visibilityState === "visible") session.refresh().catch(() => {});
    };
    refresh();
    const timer = setInterval(refresh, refreshEvery);
    return () => clearInterval(timer);
  }, [session]);
}

/** The address of an image; what it is instead is why there is none. */
export function useImage(id: number): string | Error | undefined {
  const [found, setFound] = useState<{ readonly id: number; readonly url: string | Error }>();
  useEffect(() => {
    let gone = false;
    const set = (url: string | Error) => {
      if (!gone) setFound({ id, url });
    };
    images.url(id).then(set, (cause: unknown) => set(cause instanceof Error ? cause : new Error(String(cause))));
    return () => {
      gone = true;
    };
  }, [id]);
  return found?.id === id ? found.url : undefined;
}

function storage(): Storage | undefined {
  try {
    return localStorage;
  } catch {
    return undefined;
  }
}
