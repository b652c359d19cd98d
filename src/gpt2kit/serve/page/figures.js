/** Figures as people read them: sizes, times, large counts, in the language of the page. */

import { language, number } from "./language.js";

const UNITS = [["GB", 1e9], ["MB", 1e6], ["kB", 1e3]];
const SPANS = [["day", 86400], ["hour", 3600], ["minute", 60]];

export function loss(value) {
  return value === null || value === undefined ? "–" : number(value, 3);
}

export function count(value) {
  return value === null || value === undefined ? "–" : number(Math.round(value));
}

/** 1.2M, 120万. */
export function compact(value) {
  return new Intl.NumberFormat(language(), { notation: "compact", maximumFractionDigits: 1 }).format(value);
}

export function size(bytes) {
  const [unit, length] = UNITS.find(([, least]) => bytes >= least) ?? ["B", 1];
  return `${number(bytes / length, unit === "B" ? 0 : 1)} ${unit}`;
}

/** "3 minutes ago"; null for what is less than a minute old. */
export function age(seconds) {
  const [unit, length] = SPANS.find(([, least]) => seconds >= least) ?? [null, 1];
  if (unit === null) return null;
  const format = new Intl.RelativeTimeFormat(language(), { numeric: "always", style: "short" });
  return format.format(-Math.floor(seconds / length), unit);
}

/** "3 min", for what is still to be waited. */
export function span(seconds) {
  const [unit, length] = SPANS.find(([, least]) => seconds >= least) ?? ["second", 1];
  const format = new Intl.NumberFormat(language(), { style: "unit", unit, unitDisplay: "short" });
  return format.format(Math.max(1, Math.round(seconds / length)));
}

export function clock(date) {
  return new Intl.DateTimeFormat(language(), { timeStyle: "medium" }).format(date);
}
