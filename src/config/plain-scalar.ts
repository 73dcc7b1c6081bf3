export type Scalar = string | number | boolean | null;

/**
 * What a plain (unquoted) scalar means. Files written for Anchore were read by PyYAML, which follows YAML 1.1: `yes` and `on` are true, `0750` is octal.
 * Sexagesimal numbers and dates stay text, and so does a whole number that would lose digits.
 * @see https://yaml.org/type/
 */
export function resolvePlainScalar(text: string): Scalar {
  if (/^(~|null|Null|NULL|)$/.test(text)) return null;
  if (/^(yes|Yes|YES|true|True|TRUE|on|On|ON)$/.test(text)) return true;
  if (/^(no|No|NO|false|False|FALSE|off|Off|OFF)$/.test(text)) return false;
  const number = /^[-+.\d]/.test(text) ? numberOf(text.replaceAll("_", "")) : undefined;
  return number === undefined || (Number.isInteger(number) && !Number.isSafeInteger(number)) ? text : number;
}

function numberOf(text: string): number | undefined {
  const [, sign = "", digits = ""] = /^([-+]?)(.*)$/s.exec(text) ?? [];
  const magnitude = magnitudeOf(digits);
  return magnitude === undefined ? undefined : sign === "-" ? -magnitude : magnitude;
}

function magnitudeOf(digits: string): number | undefined {
  if (/^0b[01]+$/.test(digits)) return Number.parseInt(digits.slice(2), 2);
  if (/^0x[\da-fA-F]+$/.test(digits)) return Number.parseInt(digits.slice(2), 16);
  if (/^0[0-7]+$/.test(digits)) return Number.parseInt(digits, 8);
  if (/^(0|[1-9]\d*)$/.test(digits)) return Number(digits);
  if (/^(\d+\.\d*|\.\d+)([eE][-+]\d+)?$/.test(digits)) return Number(digits);
  if (/^\.(inf|Inf|INF)$/.test(digits)) return Number.POSITIVE_INFINITY;
  return undefined;
}
