/** Routes, languages, preferences and stores. */
import { expect, test } from "vitest";
import { matchLanguage } from "../../web/shell/preferences.ts";
import { parseRoute, type Route, routeHash } from "../../web/shell/router.ts";
import { oneOf, preference, Store } from "../../web/shell/store.ts";

test.each<[string, Route]>([
  ["", { page: "chat" }],
  ["#/", { page: "chat" }],
  ["#/chat/a1-b2", { page: "chat", id: "a1-b2" }],
  ["#/chat/<script>", { page: "chat" }],
  ["#/training", { page: "training" }],
  ["#/nowhere", { page: "chat" }],
])("route %s", (hash, route) => {
  expect(parseRoute(hash)).toEqual(route);
  expect(parseRoute(routeHash(route))).toEqual(route);
});

test("the first supported language is selected", () => {
  expect(matchLanguage(["fr-FR", "zh-TW", "en"])).toBe("zh");
  expect(matchLanguage(["EN-us"])).toBe("en");
  expect(matchLanguage(["fr"])).toBe("en");
});

test("a preference is saved and read, and works without storage", () => {
  const saved = new Map<string, string>();
  const area = {
    getItem: (name: string) => saved.get(name) ?? null,
    setItem: (name: string, value: string) => saved.set(name, value),
    removeItem: (name: string) => saved.delete(name),
  } as unknown as Storage;
  const theme = oneOf("system", "dark");
  preference("theme", theme, () => area).set("dark");
  expect(preference("theme", theme, () => area).value).toBe("dark");
  saved.set("minigpt4.theme", "{broken");
  expect(preference("theme", theme, () => area).value).toBe("system");
  const forbidden = preference("theme", theme, () => {
    throw new Error("forbidden");
  });
  forbidden.set("dark");
  expect(forbidden.value).toBe("dark");
});

test("a store notifies listeners of changes only", () => {
  const store = new Store(1);
  const received: number[] = [];
  const unsubscribe = store.subscribe((value) => received.push(value));
  store.set(1);
  store.set(2);
  store.update((value) => value + 1);
  unsubscribe();
  store.set(9);
  expect(received).toEqual([2, 3]);
});
