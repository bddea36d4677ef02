import { describe, expect, test } from "vitest";
import { broken, found, rulesFiles } from "../../helpers/judging.ts";

const rulesOf = rulesFiles();

test("counts letters of other scripts", () => {
  expect(found("foreign_script", "A dog runs through the grass. Собака бежит.")).toBe(
    '11 of 34 letters are not English: "Собакабежит"',
  );
  expect(found("foreign_script", "A dog 狗 runs through the grass beside the river.")).toMatch(/^1 of 38 letters/);
});

test.each([
  ["Une femme marche dans la rue avec son chien.", "French"],
  ["A man rides a bicycle. Ein Mann fährt mit dem Fahrrad durch den Park.", "German"],
  ["Un perro marrón corre por la hierba verde. A dog runs.", "Spanish"],
  ["Due bambini giocano sulla spiaggia.", "Italian"],
  ["En kvinna sitter på en bänk i parken.", "Swedish"],
  ["Mężczyzna jedzie na rowerze przez park.", "Polish"],
  ["İki çocuk sahilde top oynuyor.", "Turkish"],
])("%s is %s", (text, language) => {
  expect(found("foreign_language", text)).toMatch(new RegExp(`^is ${language}: "`));
});

test.each([
  "A woman sits in front of the Café de Flore with a crème brûlée.",
  "A sign above the door says Bäckerei Müller, and a man with a baguette leaves the shop.",
  "Bald man in furry hat stands in snow.",
  "A blonde lady with sunglasses smiles at a toddler in a burgundy hoodie.",
  "Yankees warming up before the game in New York.",
  "The Greek letter π is painted on the blackboard behind a teacher who points at it with a stick.",
])("is English: %s", (text) => {
  expect(broken(text)).toEqual([]);
});

describe("texts of another language", () => {
  const good: Readonly<Record<string, string>> = {
    fr: "Une femme marche dans la rue avec son chien.",
    de: "Ein Mann fährt mit dem Fahrrad durch den Park und trägt einen „roten“ Helm.",
    ru: "Собака бежит по траве за мячом.",
    ja: "犬が草の上を走っています。",
    zh: "一只狗在草地上奔跑，追着一个红色的球。",
    ko: "개가 풀밭을 달리고 있습니다.",
    ar: "كلب يركض على العشب الأخضر.",
    hi: "एक कुत्ता घास पर दौड़ रहा है।",
  };

  test.each(Object.keys(good))("%s is what the rules ask for; English is foreign then", async (language) => {
    // Korean counts words, and has few.
    const rules = await rulesOf(`language: ${language}\nrules: { length: { min_words: 3 } }`);
    expect(broken(good[language] ?? "", rules)).toEqual([]);
    expect(found("foreign_language", "A dog runs through the green grass.", rules)).toMatch(/^is English/);
    const others = Object.values(good).filter((text) => text !== good[language]);
    expect(others.filter((text) => broken(text, rules).length === 0)).toEqual([]);
  });

  test("an unsupported language is rejected", async () => {
    await expect(rulesOf("language: xx")).rejects.toThrow(
      /foreign_language: the language xx cannot be detected .*\ben\b/,
    );
    await expect(rulesOf("language: English")).rejects.toThrow("language: is two letters, for example en");
  });
});
