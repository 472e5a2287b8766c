"""Check digits: the arithmetic by which a number proves that it is not just any number."""

from __future__ import annotations

from collections.abc import Sequence

# Verhoeff (1969): multiplication table of the dihedral group D5 and the position permutation.
_D5 = ("0123456789", "1234067895", "2340178956", "3401289567", "4012395678", "5987604321", "6598710432", "7659821043",
       "8765932104", "9876543210")
_TURN = ("0123456789", "1576283094", "5803796142", "8916043527", "9453126870", "4286573901", "2793806415", "7046913258")


def luhn(digits: str) -> bool:
    """ISO/IEC 7812-1 annex B: payment cards, Swedish and Canadian personal numbers."""
    total = 0
    for at, sign in enumerate(reversed(digits)):
        value = int(sign)
        if at % 2:
            value = value * 2 - 9 * (value > 4)
        total += value
    return total % 10 == 0


def luhn_digit(digits: str) -> str:
    """The check digit that makes `digits` + it valid."""
    return next(str(last) for last in range(10) if luhn(digits + str(last)))


def mod97(iban: str) -> int:
    """ISO 7064 mod 97-10 of an IBAN without spaces; 1 for a valid one."""
    turned = iban[4:] + iban[:4]
    return int("".join(str(int(sign, 36)) for sign in turned)) % 97


def iban_check(country: str, account: str) -> str:
    """The two check digits of an IBAN."""
    return f"{98 - mod97(country + '00' + account):02d}"


def verhoeff(digits: str) -> bool:
    """Verhoeff's check: Indian Aadhaar numbers."""
    state = 0
    for at, sign in enumerate(reversed(digits)):
        state = int(_D5[state][int(_TURN[at % 8][int(sign)])])
    return state == 0


def mod11_10(digits: str) -> bool:
    """ISO 7064 mod 11,10: the German tax identification number."""
    state = 10
    for sign in digits[:-1]:
        state = (state + int(sign)) % 10 or 10
        state = state * 2 % 11
    return (11 - state) % 10 == int(digits[-1])


def weighted(digits: str, weights: Sequence[int]) -> int:
    """Sum of the digits times their weights."""
    return sum(int(sign) * weight for sign, weight in zip(digits, weights))


def ean13(digits: str) -> bool:
    """GS1 check of 13 digits: Swiss AHV numbers."""
    return weighted(digits, (1, 3) * 6 + (1,)) % 10 == 0
