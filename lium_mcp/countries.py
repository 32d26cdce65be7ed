"""Countries as people name them, in lists with exclusions: `DE,FR`, `EU,!HU`, `!US`, `Germany`.

A typed code that is no country's would exclude nothing in silence, so it is refused.
"""

import json
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from functools import cache
from typing import Final

_MOST_SHOWN_CHARACTERS: Final = 24
_NAMES: Final = """
AD Andorra|AE United Arab Emirates|AF Afghanistan|AG Antigua and Barbuda|AI Anguilla|AL Albania|AM Armenia|AO Angola|
AQ Antarctica|AR Argentina|AS American Samoa|AT Austria|AU Australia|AW Aruba|AX Aland Islands|AZ Azerbaijan|
BA Bosnia and Herzegovina|BB Barbados|BD Bangladesh|BE Belgium|BF Burkina Faso|BG Bulgaria|BH Bahrain|BI Burundi|
BJ Benin|BL Saint Barthelemy|BM Bermuda|BN Brunei|BO Bolivia|BQ Bonaire|BR Brazil|BS Bahamas|BT Bhutan|
BV Bouvet Island|BW Botswana|BY Belarus|BZ Belize|CA Canada|CC Cocos Islands|CD Democratic Republic of the Congo|
CF Central African Republic|CG Congo|CH Switzerland|CI Ivory Coast|CK Cook Islands|CL Chile|CM Cameroon|CN China|
CO Colombia|CR Costa Rica|CU Cuba|CV Cape Verde|CW Curacao|CX Christmas Island|CY Cyprus|CZ Czechia|DE Germany|
DJ Djibouti|DK Denmark|DM Dominica|DO Dominican Republic|DZ Algeria|EC Ecuador|EE Estonia|EG Egypt|EH Western Sahara|
ER Eritrea|ES Spain|ET Ethiopia|FI Finland|FJ Fiji|FK Falkland Islands|FM Micronesia|FO Faroe Islands|FR France|
GA Gabon|GB United Kingdom|GD Grenada|GE Georgia|GF French Guiana|GG Guernsey|GH Ghana|GI Gibraltar|GL Greenland|
GM Gambia|GN Guinea|GP Guadeloupe|GQ Equatorial Guinea|GR Greece|GS South Georgia|GT Guatemala|GU Guam|
GW Guinea-Bissau|GY Guyana|HK Hong Kong|HM Heard Island|HN Honduras|HR Croatia|HT Haiti|HU Hungary|ID Indonesia|
IE Ireland|IL Israel|IM Isle of Man|IN India|IO British Indian Ocean Territory|IQ Iraq|IR Iran|IS Iceland|IT Italy|
JE Jersey|JM Jamaica|JO Jordan|JP Japan|KE Kenya|KG Kyrgyzstan|KH Cambodia|KI Kiribati|KM Comoros|
KN Saint Kitts and Nevis|KP North Korea|KR South Korea|KW Kuwait|KY Cayman Islands|KZ Kazakhstan|LA Laos|LB Lebanon|
LC Saint Lucia|LI Liechtenstein|LK Sri Lanka|LR Liberia|LS Lesotho|LT Lithuania|LU Luxembourg|LV Latvia|LY Libya|
MA Morocco|MC Monaco|MD Moldova|ME Montenegro|MF Saint Martin|MG Madagascar|MH Marshall Islands|MK North Macedonia|
ML Mali|MM Myanmar|MN Mongolia|MO Macao|MP Northern Mariana Islands|MQ Martinique|MR Mauritania|MS Montserrat|MT Malta|
MU Mauritius|MV Maldives|MW Malawi|MX Mexico|MY Malaysia|MZ Mozambique|NA Namibia|NC New Caledonia|NE Niger|
NF Norfolk Island|NG Nigeria|NI Nicaragua|NL Netherlands|NO Norway|NP Nepal|NR Nauru|NU Niue|NZ New Zealand|OM Oman|
PA Panama|PE Peru|PF French Polynesia|PG Papua New Guinea|PH Philippines|PK Pakistan|PL Poland|
PM Saint Pierre and Miquelon|PN Pitcairn|PR Puerto Rico|PS Palestine|PT Portugal|PW Palau|PY Paraguay|QA Qatar|
RE Reunion|RO Romania|RS Serbia|RU Russia|RW Rwanda|SA Saudi Arabia|SB Solomon Islands|SC Seychelles|SD Sudan|SE Sweden|
SG Singapore|SH Saint Helena|SI Slovenia|SJ Svalbard and Jan Mayen|SK Slovakia|SL Sierra Leone|SM San Marino|SN Senegal|
SO Somalia|SR Suriname|SS South Sudan|ST Sao Tome and Principe|SV El Salvador|SX Sint Maarten|SY Syria|SZ Eswatini|
TC Turks and Caicos Islands|TD Chad|TF French Southern Territories|TG Togo|TH Thailand|TJ Tajikistan|TK Tokelau|
TL Timor-Leste|TM Turkmenistan|TN Tunisia|TO Tonga|TR Turkey|TT Trinidad and Tobago|TV Tuvalu|TW Taiwan|TZ Tanzania|
UA Ukraine|UG Uganda|UM United States Minor Outlying Islands|US United States|UY Uruguay|UZ Uzbekistan|VA Vatican City|
VC Saint Vincent and the Grenadines|VE Venezuela|VG British Virgin Islands|VI Virgin Islands|VN Vietnam|VU Vanuatu|
WF Wallis and Futuna|WS Samoa|XK Kosovo|YE Yemen|YT Mayotte|ZA South Africa|ZM Zambia|ZW Zimbabwe
"""
_ALSO: Final = {"UK": "GB", "EL": "GR", "USA": "US", "UAE": "AE", "GREAT BRITAIN": "GB", "CZECH REPUBLIC": "CZ"}
_EU: Final = "EU"
_EU_MEMBERS: Final = frozenset(
    "AT BE BG CY CZ DE DK EE ES FI FR GR HR HU IE IT LT LU LV MT NL PL PT RO SE SI SK".split()  # noqa: SIM905 - 27 codes
)


@dataclass(frozen=True, slots=True)
class Countries:
    """Where something may be. An empty set of allowed ones allows every known country that is not excluded."""

    allowed: frozenset[str] = frozenset()
    excluded: frozenset[str] = frozenset()

    @classmethod
    def of(cls, codes: str) -> "Countries":
        """Those that a text in the form of `plain_countries` means."""
        parts = [part for part in codes.split(",") if part]
        excluded = _members(part.removeprefix("!") for part in parts if part.startswith("!"))
        return cls(_members(part for part in parts if not part.startswith("!")) - excluded, excluded)

    def admits(self, code: str | None) -> bool:
        """Whether a country is one of these; one that nobody knows is not, since it may be an excluded one."""
        if not self.allowed and not self.excluded:
            return True
        known = _codes().get((code or "").strip().upper())
        return known is not None and known not in self.excluded and (not self.allowed or known in self.allowed)


def plain_countries(given: str) -> str:
    """A list of countries in one form, be it JSON or joined by commas: codes in order, `!` before those excluded.

    Raises:
        ValueError: a part of it is no country, or nothing is left of it.
    """
    if not given.strip():
        return ""
    parts = {_plain(part) for part in _parts(given)}
    if not parts:
        raise ValueError("it names no country, but may be left out")
    codes = ",".join(sorted(parts))
    if any(not code.startswith("!") for code in parts) and not Countries.of(codes).allowed:
        raise ValueError("it excludes every country that it names")
    return codes


def named(codes: Collection[str]) -> str:
    """Countries in a sentence; all of the EU are its name."""
    rest = sorted(set(codes) - _EU_MEMBERS if set(codes) >= _EU_MEMBERS else codes)
    return ", ".join([_EU, *rest] if set(codes) >= _EU_MEMBERS else rest)


def _parts(given: str) -> Iterable[str]:
    listed: object = given.split(",")
    if given.strip().startswith("["):
        try:
            listed = json.loads(given)
        except ValueError:
            raise ValueError("it looks like a JSON list and is none") from None
    if not isinstance(listed, list) or not all(isinstance(part, str) for part in listed):
        raise ValueError("it is no list of countries")
    return [part for text in listed for part in text.split(",") if part.strip()]


def _plain(part: str) -> str:
    text = part.strip()
    words = " ".join(text.removeprefix("!").split()).upper()
    code = _codes().get(words)
    if code is None:
        shown = text if len(text) <= _MOST_SHOWN_CHARACTERS else f"{text[:_MOST_SHOWN_CHARACTERS]}..."
        raise ValueError(
            f"{shown!r} is no country: give ISO codes, EU (the European Union), or !CODE to exclude; comma between"
        )
    return f"!{code}" if text.startswith("!") else code


def _members(codes: Iterable[str]) -> frozenset[str]:
    return frozenset(member for code in codes for member in (_EU_MEMBERS if code == _EU else {code}))


@cache
def _codes() -> dict[str, str]:
    """The code of each country by each way to name it."""
    rows = [row.strip().partition(" ") for row in _NAMES.replace("\n", "").split("|")]
    by_name = {name.upper(): code for code, _, name in rows}
    return by_name | {code: code for code, _, _ in rows} | _ALSO | {_EU: _EU, "EUROPEAN UNION": _EU}
