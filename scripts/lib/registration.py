"""Registration messages (RFC 5944), for an end of a tunnel that is not Homeport's.

Requests are made and replies read here; who sends them is another's business.
"""

import hmac
import ipaddress
import struct
import time
from dataclasses import dataclass, field

REQUEST, REPLY = 1, 3
# Flags of a request (RFC 5944, 3.3; T: RFC 3024, 3.1).
CO_LOCATED, MINIMAL, GRE, REVERSE_TUNNEL = 0x20, 0x10, 0x08, 0x02
# Extensions: type, length, data; the long ones type, sub-type (0), length in two bytes,
# data (RFC 5944, 1.10). The mobile-home authentication comes last.
MOBILE_HOME_AUTHENTICATION = 32
GRE_KEY = 48  # RFC 6245
CHALLENGE = 132  # RFC 4721
LONG = (GRE_KEY,)
ACCEPTED = (0, 1)
FAILED_AUTHENTICATION = 131
# Seconds from 1900 to 1970 (RFC 5905).
NTP_OFFSET = 2_208_988_800


class RegistrationError(Exception):
    """A reply that is not one, or not to this request."""


@dataclass(frozen=True)
class Association:
    """What the node shares with its home agent: an HMAC-MD5 key and its number."""

    spi: int
    key: bytes

    def authenticator(self, message: bytes) -> bytes:
        """HMAC-MD5 over the message up to and with the SPI (RFC 5944, 3.5.1)."""
        return hmac.digest(self.key, message, "md5")


@dataclass
class Request:
    """A registration request."""

    home_address: str
    home_agent: str
    care_of_address: str
    lifetime: int
    flags: int
    # (type, data) of the extensions that the authentication covers.
    extensions: list[tuple[int, bytes]] = field(default_factory=list)
    identification: int = field(default_factory=lambda: timestamp(time.time()))

    def emit(self, association: Association) -> bytes:
        """Its bytes, authenticated."""
        message = struct.pack("!BBH4s4s4sQ", REQUEST, self.flags, self.lifetime, packed(self.home_address),
                              packed(self.home_agent), packed(self.care_of_address), self.identification)
        for kind, data in self.extensions:
            message += struct.pack("!BBH", kind, 0, len(data)) if kind in LONG else struct.pack("!BB", kind, len(data))
            message += data
        message += struct.pack("!BBI", MOBILE_HOME_AUTHENTICATION, 20, association.spi)
        return message + association.authenticator(message)


@dataclass(frozen=True)
class Reply:
    """A registration reply whose authenticator is right."""

    code: int
    lifetime: int
    identification: int
    extensions: tuple[tuple[int, bytes], ...]

    @classmethod
    def parse(cls, message: bytes, request: Request, association: Association) -> "Reply":
        """The reply to `request`; a `RegistrationError` if it is something else."""
        if len(message) < 20:
            raise RegistrationError(f"{len(message)} bytes are no registration reply")
        kind, code, lifetime, home_address, home_agent, identification = struct.unpack_from("!BBH4s4sQ", message)
        if kind != REPLY:
            raise RegistrationError(f"a message of type {kind}")
        if (home_address, home_agent) != (packed(request.home_address), packed(request.home_agent)):
            raise RegistrationError("a reply to somebody else")
        if (identification ^ request.identification) & 0xFFFF_FFFF:
            raise RegistrationError("a reply to another request")
        extensions, at = [], 20
        while at < len(message):
            head = 4 if message[at] in LONG else 2
            # The length is the last of the head, one byte or two.
            end = at + head + int.from_bytes(message[at + head // 2:at + head], "big")
            if at + head > len(message) or end > len(message):
                raise RegistrationError("an extension that is cut off")
            data = message[at + head:end]
            if message[at] == MOBILE_HOME_AUTHENTICATION:
                if data[:4] != association.spi.to_bytes(4, "big"):
                    raise RegistrationError("a reply under another SPI")
                if not hmac.compare_digest(data[4:], association.authenticator(message[:at + 6])):
                    raise RegistrationError("a reply with a wrong authenticator")
                return cls(code, lifetime, identification, tuple(extensions))
            extensions.append((message[at], data))
            at = end
        raise RegistrationError(f"a reply of code {code} without authentication")


def packed(address: str) -> bytes:
    """The four bytes of an IPv4 address."""
    return ipaddress.IPv4Address(address).packed


def timestamp(now: float) -> int:
    """An identification by timestamp (RFC 5944, 5.7.1): NTP's format."""
    seconds = int(now)
    return (seconds + NTP_OFFSET & 0xFFFF_FFFF) << 32 | int((now - seconds) * 2**32) & 0xFFFF_FFFF
