/** The session of the current reviewer as hooks. It outlasts switching to another section. */
import { useEffect, useState } from "preact/hooks";
import { preference, useStore } from "../shell/store.ts";
import { ReviewApi } from "./api.ts";
import { ImageCache } from "./prefetch.ts";
import { ReviewSession } from "./session.ts";

export const maxNameLength = 80;

export const reviewer = preference<string | undefined>("reviewer", (stored) =>
  typeof stored === "string" && stored.trim() !== "" && stored.length <= maxNameLength ? stored : undefined,
);

const refreshIntervalMs = 10_000;

export const api = new ReviewApi();
const images = new ImageCache((id) => api.image(id));

let openSession: { readonly name: string; readonly session: ReviewSession } | undefined;

/** The session; undefined until the reviewer has entered a name. */
export function useSession(): ReviewSession | undefined {
  const name = useStore(reviewer);
  return name === undefined ? undefined : getSession(name);
}

function getSession(name: string): ReviewSession {
  if (openSession?.name === name) return openSession.session;
  openSession?.session.close();
  const session = new ReviewSession(api, name, { storage: browserStorage() });
  session.prefetcher.onFetched = ({ id }) => void images.url(id).catch(() => {});
  openSession = { name, session };
  void session.open();
  return session;
}

/** Refreshes the session while the page is visible. */
export function useRefresh(session: ReviewSession): void {
  useEffect(() => {
    const refresh = () => {
      // Errors show when decisions are sent and when the next pair is loaded.
      if (document.visibilityState === "visible") session.refresh().catch(() => {});
    };
    refresh();
    const timer = setInterval(refresh, refreshIntervalMs);
    return () => clearInterval(timer);
  }, [session]);
}

/** An object URL of an image, the error if it failed to load, or undefined while it loads. */
export function useImage(id: number): string | Error | undefined {
  const [loaded, setLoaded] = useState<{ readonly id: number; readonly url: string | Error }>();
  useEffect(() => {
    let unmounted = false;
    const set = (url: string | Error) => {
      if (!unmounted) setLoaded({ id, url });
    };
    images.url(id).then(set, (cause: unknown) => set(cause instanceof Error ? cause : new Error(String(cause))));
    return () => {
      unmounted = true;
    };
  }, [id]);
  return loaded?.id === id ? loaded.url : undefined;
}

function browserStorage(): Storage | undefined {
  try {
    return localStorage;
  } catch {
    return undefined;
  }
}
