/** Which network addresses belong to the public internet, and not to this machine, its networks or its cloud. */
import ipaddr from "ipaddr.js";

/** All that is routed in public; the rest of IPv6 is local, reserved, or an IPv4 address in disguise. */
const globalUnicast = ipaddr.IPv6.parseCIDR("2000::/3");

/** Azure's own services, which a virtual machine reaches at an address that looks like any other. */
const cloudService = "168.63.129.16";

/**
 * Whether an IP address (as a resolver writes it) is one of the public internet. Forms that carry an IPv4 address inside
 * of an IPv6 one (mapped, NAT64, 6to4, Teredo) count as not public, whatever they carry.
 */
export function isPublicAddress(text: string): boolean {
  if (!ipaddr.isValid(text)) return false;
  const address = ipaddr.parse(text);
  if (address.range() !== "unicast") return false;
  return address instanceof ipaddr.IPv6 ? address.match(globalUnicast) : address.toString() !== cloudService;
}
