import { BlockList, isIP } from "node:net";

/**
 * Where an address leads. `linkLocal` holds the metadata services of clouds; `private` is everything that is not on the public Internet.
 */
export type AddressClass = "public" | "private" | "loopback" | "linkLocal";

function blocks(...subnets: readonly string[]): BlockList {
  const list = new BlockList();
  for (const subnet of subnets) {
    const [address = "", prefix] = subnet.split("/");
    list.addSubnet(address, Number(prefix), isIP(address) === 6 ? "ipv6" : "ipv4");
  }
  return list;
}

// @see IANA special-purpose address registries; 0.0.0.0/8 and :: reach this host.
const loopback = blocks("127.0.0.0/8", "0.0.0.0/8", "::1/128", "::/128");
const linkLocal = blocks("169.254.0.0/16", "fe80::/10");
const other = blocks(
  "10.0.0.0/8",
  "100.64.0.0/10",
  "172.16.0.0/12",
  "192.0.0.0/24",
  "192.168.0.0/16",
  "198.18.0.0/15",
  "224.0.0.0/4",
  "240.0.0.0/4",
  "fc00::/7",
  "fec0::/10",
  "ff00::/8",
);

/** The class of an IP address; what is none counts as link-local, the class that nothing may reach. */
export function classifyAddress(address: string): AddressClass {
  const plain = address.replace(/^\[|\]$/g, "").replace(/%.*$/, "");
  const version = isIP(plain);
  if (version === 0) return "linkLocal";
  const embedded = version === 6 ? embeddedIpv4(plain) : undefined;
  if (embedded !== undefined) return classifyAddress(embedded);
  const family = version === 6 ? "ipv6" : "ipv4";
  if (loopback.check(plain, family)) return "loopback";
  if (linkLocal.check(plain, family)) return "linkLocal";
  return other.check(plain, family) ? "private" : "public";
}

/** What a registry whose own address has class `from` may send us to. */
export function mayLeadTo(from: AddressClass, to: AddressClass): boolean {
  if (to === "public") return true;
  if (to === "linkLocal") return from === "linkLocal";
  return from === "loopback" || (from === "private" && to === "private");
}

/** Whether a host name or address literal means this very machine. */
export function isLoopbackHost(hostname: string): boolean {
  const name = hostname.toLowerCase().replace(/^\[|\]$/g, "");
  if (name === "localhost" || name.endsWith(".localhost")) return true;
  return isIP(name) !== 0 && classifyAddress(name) === "loopback";
}

const translated = blocks("::ffff:0:0/96", "64:ff9b::/96", "::/96");
const sixToFour = blocks("2002::/16");

/** The IPv4 address that an IPv6 address carries: mapped, compatible, NAT64, 6to4. */
function embeddedIpv4(address: string): string | undefined {
  if (address === "::" || address === "::1") return undefined;
  const bytes = ipv6Bytes(address);
  if (translated.check(address, "ipv6")) return bytes.slice(12).join(".");
  return sixToFour.check(address, "ipv6") ? bytes.slice(2, 6).join(".") : undefined;
}

function ipv6Bytes(address: string): readonly number[] {
  // The URL parser writes the compressed hexadecimal form, whatever was given.
  const canonical = new URL(`http://[${address}]/`).hostname.slice(1, -1);
  const [head = "", tail] = canonical.split("::");
  const words = (text: string) => (text === "" ? [] : text.split(":").map((word) => Number.parseInt(word, 16)));
  const left = words(head);
  const right = tail === undefined ? [] : words(tail);
  const all = [...left, ...new Array<number>(8 - left.length - right.length).fill(0), ...right];
  return all.flatMap((word) => [word >> 8, word & 0xff]);
}
