/** The header that pages share: language and theme. */

import { language, setLanguage, t, translate, useTexts } from "./language.js";
import { nextTheme, setTheme, theme } from "./theme.js";

const TEXTS = {
  en: {
    nav: "Pages",
    write: "Write",
    runs: "Runs",
    docs: "API",
    languageLabel: "中文：换成中文",
    otherLanguage: "中文",
    themeLabel: "Theme: {theme}",
    system: "as the system",
    light: "light",
    dark: "dark",
  },
  zh: {
    nav: "页面",
    write: "写作",
    runs: "训练",
    docs: "接口",
    languageLabel: "English: change to English",
    otherLanguage: "English",
    themeLabel: "主题：{theme}",
    system: "跟随系统",
    light: "浅色",
    dark: "深色",
  },
};

/** Speak the page in its language, now and whenever another is chosen; `redraw` says what HTML does not name. */
export function startHeader(texts, redraw) {
  useTexts({ en: { ...TEXTS.en, ...texts.en }, zh: { ...TEXTS.zh, ...texts.zh } });
  const speak = () => {
    translate();
    document.title = `${t("title")} · gpt2kit`;
    nameTheme();
    redraw();
  };
  document.getElementById("language").addEventListener("click", () => {
    setLanguage(language() === "zh" ? "en" : "zh");
    speak();
  });
  document.getElementById("theme").addEventListener("click", () => {
    setTheme(nextTheme());
    nameTheme();
  });
  document.querySelector(".site-tools").hidden = false;
  speak();
}

function nameTheme() {
  const button = document.getElementById("theme");
  button.title = t("themeLabel", { theme: t(theme()) });
  button.setAttribute("aria-label", button.title);
}
