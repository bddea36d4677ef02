/** Routes, languages, preferences and stores. */
import { expect, test } from "vitest";
import { browserLanguage } from "../../web/shell/language.ts";
import { oneOf, preference } from "../../web/shell/preferences.ts";
import { parseRoute, type Route, routeHash } from "../../web/shell/router.ts";
import { Store } from "../../web/shell/store.ts";

test.each<[string, Route]>([
  ["", { page: "chat" }],
  ["#/", { page: "chat" }],
  ["#/chat/a1-b2", { page: "chat", id: "a1-b2" }],
  ["#/chat/<script>", { page: "chat" }],
  ["#/training", { page: "training" }],
  ["#/nowhere", { page: "chat" }],
])("%s is a route", (hash, route) => {
  expect(parseRoute(hash)).toEqual(route);
  expect(parseRoute(routeHash(route))).toEqual(route);
});

test("the first language that the page speaks is taken", () => {
  expect(browserLanguage(["fr-FR", "zh-TW", "en"])).toBe("zh");
  expect(browserLanguage(["EN-us"])).toBe("en");
  expect(browserLanguage(["fr"])).toBe("en");
});

test("a preference is kept, read again, and survives a browser that keeps nothing", () => {
  const kept = new Map<string, string>();
  const area = {
    getItem: (name: string) => kept.get(name) ?? null,
    setItem: (name: string, value: string) => kept.set(name, value),
    removeItem: (name: string) => kept.delete(name),
  } as unknown as Storage;
  const theme = oneOf("system", "dark");
  preference("theme", theme, () => area).set("dark");
  expect(preference("theme", theme, () => area).value).toBe("dark");
  kept.set("minigpt4.theme", "{broken");
  expect(preference("theme", theme, () => area).value).toBe("system");
  const forbidden = preference("theme", theme, () => {
    throw new Error("forbidden");
  });
  forbidden.set("dark");
  expect(forbidden.value).toBe("dark");
});

test("a store tells of changes, and of nothing else", () => {
  const store = new Store(1);
  const heard: number[] = [];
  const end = store.subscribe((value) => heard.push(value));
  store.set(1);
  store.set(2);
  store.update((value) => value + 1);
  end();
  store.set(9);
  expect(heard).toEqual([2, 3]);
});
