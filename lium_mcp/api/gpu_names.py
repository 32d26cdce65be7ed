"""GPU names: from people's words to the market's machines, and what a machine is called.

One reading serves both sides. A name is split into words; a word is the model's number (`H100`, `4090D`), a mark that
makes another card of it (`Ti`, `Ada`, `PRO`), or a variant of the same card (`PCIe`, `80GB`). A name without variants
means every variant of its model, one with them only those. Cards nobody knows yet are read by their words in the same
way. Knows nothing of HTTP.
"""

import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from difflib import SequenceMatcher
from functools import cached_property, lru_cache
from typing import Final

# The official client's short type, which the API takes. In this order: "RTX PRO 6000" must be tried before a plain RTX
# number, and both before the letter families.
_TYPE_PATTERNS: Final = tuple(
    re.compile(pattern, re.IGNORECASE)
    for pattern in (r"(RTX)\s*(PRO)\s*(\d{4}D?)", r"(RTX)\s*(\d{4})", r"([HBL]\d{2,3}S?)", r"(A\d{2,4})")
)
# No honest name is longer, and what comes from the wire may have any length.
_MOST_CHARACTERS: Final = 200

_MAKERS: Final = frozenset({"NVIDIA", "AMD", "INTEL"})
_FAMILIES: Final = frozenset({"RTX", "GTX"})
# Words that tell no two cards apart. The B300's "AC" and "PC" are one card.
_ARCHITECTURES: Final = frozenset({"BLACKWELL", "HOPPER", "AMPERE", "LOVELACE", "TURING", "VOLTA"})
_LINES: Final = frozenset({"GEFORCE", "TESLA", "INSTINCT"})
_FILLERS: Final = frozenset({"GENERATION", "EDITION", "TENSOR", "CORE", "GPU", "GRAPHICS", "CARD", "AC", "PC"})
_NOISE: Final = _MAKERS | _ARCHITECTURES | _LINES | _FILLERS
_MARKS: Final = {
    "QUADRO": "Quadro",
    "PRO": "PRO",
    "TI": "Ti",
    "SUPER": "SUPER",
    "ADA": "Ada",
    "LAPTOP": "Laptop",
    "MOBILE": "Mobile",
}
# Marks without which a number means the card that has none of them.
_STRICT_MARKS: Final = frozenset({"TI", "SUPER", "LAPTOP", "MOBILE"})
_EDITIONS: Final = {"SERVER": "Server", "WORKSTATION": "Workstation", "MAXQ": "Max-Q"}
_VARIANT: Final = re.compile(r"PCIE|NVL|SXM\d?|HBM\d[A-Z]?|\d+GB|SERVER|WORKSTATION|MAXQ")
_FORM: Final = re.compile(r"PCIE|NVL|SXM\d?")
_MEMORY: Final = re.compile(r"\d+GB")
# Sold on SXM boards where the name says no other form.
_SXM_BOARDS: Final = frozenset({"H100", "H200", "H800", "H20", "B100", "B200", "B300"})
# The bare name of one of these means the card on an SXM board, and no other form.
_NAMED_BARE: Final = frozenset({"H200"})
# Sold in several forms: a name that says no form may mean any of them.
_SEVERAL_FORMS: Final = _SXM_BOARDS | frozenset({"A100", "A800", "V100", "P100"})

_JOINED: Final = (
    (re.compile(r"\bPCI[\s_-]?E(?:XPRESS)?\b"), " PCIE "),
    (re.compile(r"MAX[\s_-]?Q"), "MAXQ"),
    (re.compile(r"(?<![A-Z0-9.])(\d{1,4})\s?GI?B?\b"), r" \1GB "),
    (re.compile(r"(?<=\d)[\s_-]+D(?![A-Z0-9])"), "D"),
    (re.compile(r"\b([ABHLTVPMK])[\s_-]+(\d{1,4})(?=[\s_-]|$)"), r"\1\2"),
    (re.compile(r"\b(L?40)[\s_-]+S\b"), r"\1S"),
)
_BEFORE: Final = re.compile(
    r"(NVIDIA|GEFORCE|QUADRO|TESLA|TITAN|RTX|GTX|CMP|PRO)(?=[A-Z]?\d|[RG]TX|PRO|TITAN|GEFORCE|QUADRO|TESLA|CMP|X[P]?$)"
)
_AFTER: Final = re.compile(
    r"(?<=[0-9A-Z])(PCIE|SXM\d?|HBM\d[A-Z]?|NVL|TI|SUPER|ADA|PRO|MAXQ|SERVER|WORKSTATION|BLACKWELL|GENERATION|EDITION"
    r"|TENSOR|CORE|GPU|AC|PC|(?<=[A-Z0-9]{4})(?:40|80)GB)$"
)
# The number of a model, wherever it stands in a name.
_MODEL: Final = re.compile(r"\d{4}D?|[HBL]\d{2,3}S?|A\d{2,4}")
_NUMBER: Final = re.compile(r"[A-Z]{0,3}\d{1,4}[A-Z]{0,2}")

_BLACKWELL: Final = re.compile(r"50[5-9]0D?|G?B\d{3}")
# The characters of a card's name. A letter of another alphabet may look like one of them, but is another.
_PLAIN: Final = re.compile(r"[A-Za-z0-9\s_\-./()+]+")

# Memory sizes that makers sell, GB.
_SIZES_GB: Final = (
    *(1, 2, 3, 4, 5, 6, 8, 10, 11, 12, 16, 20, 22, 24, 32, 40, 48, 64, 72, 80, 84, 94, 96, 128, 141, 144),
    *(180, 186, 192, 256, 288),
)
# Error correction and firmware take up to a sixteenth of the memory.
_LEAST_SHARE: Final = 0.93
_MIB_PER_GIB: Final = 2**10


def short_gpu_type(machine_name: str) -> str:
    """Return the short type of a full name, as the API and the official client use it: `RTX4090`, `H100`."""
    for pattern in _TYPE_PATTERNS:
        if match := pattern.search(machine_name):
            return "".join(match.groups()).upper()
    words = machine_name.split()
    return words[-1] if words else "Unknown"


def holds_model_number(machine_name: str) -> bool:
    """Tell whether a machine name holds a model number of a family we know."""
    return any(pattern.search(machine_name) for pattern in _TYPE_PATTERNS)


def nominal_vram_gb(capacity_mib: float) -> int:
    """The size under which makers sell a card with so much memory: 24 for 24564 MiB, 80 for 81559, 48 for 46068."""
    gib = capacity_mib / _MIB_PER_GIB
    size = next((size for size in _SIZES_GB if size >= gib * 0.995), 0)
    return size if size and gib >= size * _LEAST_SHARE else round(gib)


@dataclass(frozen=True)
class GpuName:
    """A GPU's name, a person's or the market's, as it is understood.

    Attributes:
        number: The main part of the model's name, such as `H100`, `4090`, `4090D`, `TITANV`; empty where there is none.
        marks: Words that make another card of it.
        variants: Words for a variant of the card, in the order of the name.
        words: Every word.
        family: `RTX`, `GTX`, or empty.
        others: Words of no known meaning.
    """

    number: str
    marks: frozenset[str]
    variants: tuple[str, ...]
    words: frozenset[str]
    family: str = ""
    others: tuple[str, ...] = field(default=())

    @property
    def model(self) -> str:
        """The card without its variants: `H100`, `RTX4090`, `RTX4090 D`, `RTX6000 Ada`, `RTXPRO6000`."""
        number, suffix = self.number, ""
        if number.startswith("TITAN"):
            number = f"TITAN {number[5:]}".rstrip()
        elif number[:1].isdigit():
            if number.endswith("D") and "PRO" not in self.marks:
                number, suffix = number[:-1], " D"
            number = f"{self.family}{'PRO' if 'PRO' in self.marks else ''}{number}"
            if not self.family and self.others:
                number = " ".join((*self.others, number))
        before = "Quadro " if "QUADRO" in self.marks else ""
        after = "".join(f" {shown}" for mark, shown in _MARKS.items() if mark in self.marks - {"QUADRO", "PRO"})
        return f"{before}{number}{suffix}{after}" if number else " ".join(self.others) or "Unknown"

    @property
    def label(self) -> str:
        """The card with its variants: `H100 PCIe`, `A100 SXM4 80GB`, `RTXPRO6000 Server`."""
        shown = (_EDITIONS.get(word, "PCIe" if word == "PCIE" else word) for word in self.variants)
        return " ".join((self.model, *shown))

    @cached_property
    def _stated_form(self) -> str | None:
        form = next((word for word in self.variants if _FORM.fullmatch(word)), None)
        is_on_board = self.number in _NAMED_BARE or (
            self.number in _SXM_BOARDS and any(word.startswith("HBM") for word in self.variants)
        )
        return form or ("SXM" if is_on_board else None)

    @cached_property
    def _form(self) -> str | None:
        return self._stated_form or ("SXM" if self.number in _SXM_BOARDS else None)

    @cached_property
    def memory_gb(self) -> int | None:
        """The memory size that the name says."""
        return next((int(word[:-2]) for word in self.variants if _MEMORY.fullmatch(word)), None)

    def fits(self, machine: "GpuName", memory_gb: float | None) -> bool:
        """Whether this name, as a wish, means a machine; `memory_gb` is the machine's size if its name says none."""
        if not self.number:
            # "RTX", "Ada", "80GB": every card that has these words.
            return bool(self.words - _MAKERS) and self.words - _MAKERS <= machine.words
        return self._is_model(machine) and self._is_variant(machine, memory_gb)

    def contradicts(self, machine: "GpuName", memory_gb: float | None) -> bool:
        """Whether what a machine states of itself rules out this name; what is not stated contradicts nothing."""
        if not (_has_number(self) and _has_number(machine)):
            return False  # words that are no card's name say nothing
        if not self._is_model(machine):
            return True
        form, wanted = machine._stated_form, self._stated_form  # noqa: SLF001 - of its own kind
        size = machine.memory_gb or memory_gb
        is_other_form = bool(form and wanted) and not _same_form(wanted or "", form or "")
        editions, theirs = (_EDITIONS.keys() & set(name.variants) for name in (self, machine))
        is_other_edition = bool(editions and theirs) and (
            not editions & theirs or ("MAXQ" in editions) != ("MAXQ" in theirs)
        )
        return (
            is_other_form
            or is_other_edition
            or (self.memory_gb is not None and size is not None and size != self.memory_gb)
        )

    def _is_model(self, machine: "GpuName") -> bool:
        is_bare = not self.family and self.number[:1].isdigit()
        if self.number == "TITAN":
            is_number = machine.number.startswith("TITAN")
        else:
            theirs = machine.number.lstrip("ABCDEFGHIJKLMNOPQRSTUVWXYZ") if is_bare else machine.number
            is_number = self.number == theirs
        return (
            is_number
            and self.marks <= machine.marks
            and self.marks & _STRICT_MARKS == machine.marks & _STRICT_MARKS
            # "RTX 6000" is no RTX PRO 6000; "6000" may be any, and "RTX 6000 Blackwell" is.
            and ("PRO" in self.marks or "PRO" not in machine.marks or is_bare or "BLACKWELL" in self.words)
            and ("BLACKWELL" not in self.words or machine.is_blackwell)
            and set(self.others) <= machine.words
        )

    @property
    def is_blackwell(self) -> bool:
        """Whether it is of that generation, by its words or its number."""
        return "BLACKWELL" in self.words or _BLACKWELL.fullmatch(self.number) is not None

    def _is_variant(self, machine: "GpuName", memory_gb: float | None) -> bool:
        if self.number in _NAMED_BARE and not _same_form(self._stated_form or "", machine._form or ""):  # noqa: SLF001
            return False
        for word in self.variants:
            if _FORM.fullmatch(word):
                form = machine._form  # noqa: SLF001 - of its own kind
                if form is None and (word != "PCIE" or machine.number in _SEVERAL_FORMS):
                    return False
                if form is not None and not _same_form(word, form):
                    return False
            elif _MEMORY.fullmatch(word):
                if (machine.memory_gb or memory_gb) != self.memory_gb:
                    return False
            elif word not in machine.words:
                return False
        edition = {"SERVER", "WORKSTATION"} & set(self.variants)
        return not edition or ("MAXQ" in self.variants) == ("MAXQ" in machine.variants)


def _same_form(wanted: str, form: str) -> bool:
    # "SXM" alone means boards of every generation.
    return wanted == form or (wanted[:3] == form[:3] == "SXM" and "SXM" in (wanted, form))


@lru_cache(maxsize=4096)
def _read(text: str) -> GpuName:
    words = _words(text)
    families = [word for word in words if word in _FAMILIES]
    titan = words.index("TITAN") if "TITAN" in words else None
    number = ""
    if titan is not None:
        number = "".join(words[titan : titan + 2])
        words_left = [*words[:titan], *words[titan + 2 :]]
        families = []
    else:
        known = _NOISE | _FAMILIES | _MARKS.keys()
        left = [word for word in words if word not in known and not _VARIANT.fullmatch(word)]
        numbers = [word for word in left if _NUMBER.fullmatch(word)] or [
            word for word in left if re.search(r"\d", word)
        ]
        number = numbers[0] if numbers else (left[-1] if left else "")
        words_left = [word for word in words if word != number]
    others = tuple(
        word
        for word in words_left
        if word not in _NOISE | _FAMILIES | _MARKS.keys() and not _VARIANT.fullmatch(word) and word != "CMP"
    )
    return GpuName(
        number=number,
        marks=frozenset(word for word in words_left if word in _MARKS),
        variants=tuple(dict.fromkeys(word for word in words_left if _VARIANT.fullmatch(word))),
        words=frozenset(words),
        family=families[0] if families else "",
        others=others,
    )


def _words(text: str) -> list[str]:
    text = text.upper()
    for pattern, replacement in _JOINED:
        text = pattern.sub(replacement, text)
    words: list[str] = []
    for chunk in re.split(r"[^A-Z0-9.]+", text):
        after: list[str] = []
        while match := _BEFORE.match(chunk):
            words.append(match[1])
            chunk = chunk[match.end() :]  # noqa: PLW2901 - what is left of it
        while (match := _AFTER.search(chunk)) and match.start() and re.search(r"\d", chunk[: match.start()]):
            after.insert(0, match[1])
            chunk = chunk[: match.start()]  # noqa: PLW2901 - as above
        words += [word for word in (chunk, *after) if word]
    return words


def read_gpu_name(text: str) -> GpuName:
    """Read one name, a person's or the market's."""
    return _read(text[:_MOST_CHARACTERS])


def gpu_label(machine_name: str) -> str:
    """The name of a machine in answers, under which it can be asked for again: `H100 PCIe`, `RTX4090`."""
    name = read_gpu_name(machine_name)
    return name.label if _has_number(name) else short_gpu_type(machine_name)


def gpu_model(machine_name: str) -> str:
    """The model of a machine, without its variants: `H100`, `RTX4090`."""
    name = read_gpu_name(machine_name)
    return name.model if _has_number(name) else short_gpu_type(machine_name)


def _has_number(name: GpuName) -> bool:
    return name.number.startswith("TITAN") or any(map(str.isdigit, name.number))


def is_gpu_name(text: str) -> bool:
    """Whether a text is a single name: words of cards, with the number of at most one model."""
    text = unicodedata.normalize("NFKC", text)
    name = read_gpu_name(text)
    if _PLAIN.fullmatch(text) is None or any(_MODEL.fullmatch(word) for word in name.others):
        return False
    if not name.number:
        return bool(name.words - _MAKERS)
    return name.number.startswith("TITAN") or _NUMBER.fullmatch(name.number) is not None


def gpu_names(wanted: str) -> list[str]:
    """Split a wish into its names, which are separated by commas."""
    return [part.strip() for part in unicodedata.normalize("NFKC", wanted).split(",") if part.strip()]


def gpu_fits(wanted: str, machine_name: str, memory_gb: float | None = None) -> bool:
    """Whether a person's words, one name or several with commas between, mean a machine.

    Args:
        wanted: The words.
        machine_name: The machine's full name, or a label of ours.
        memory_gb: Its nominal memory, where it is known; a size in the machine's name comes first.
    """
    return _fits(wanted, machine_name[:_MOST_CHARACTERS], memory_gb)


@lru_cache(maxsize=4096)
def _fits(wanted: str, machine_name: str, memory_gb: float | None) -> bool:
    # A market has hundreds of nodes of a few types.
    machine = read_gpu_name(machine_name)
    return any(
        part.casefold() == machine_name.casefold()
        or (_PLAIN.fullmatch(part) is not None and read_gpu_name(part).fits(machine, memory_gb))
        for part in gpu_names(wanted)
    )


def gpu_contradicts(wanted: str, machine_name: str, memory_gb: float | None = None) -> bool:
    """Whether the machine that a pod is stated to have is none of those that were wanted."""
    machine, wishes = read_gpu_name(machine_name), gpu_names(wanted)
    return bool(wishes) and all(read_gpu_name(part).contradicts(machine, memory_gb) for part in wishes)


def matching_machine_names(wanted: str, machine_names: Iterable[str]) -> list[str]:
    """Return the full names that the words may mean, in their order; a name without a size may have any size."""
    return [name for name in machine_names if any(_may_fit(part, name) for part in gpu_names(wanted))]


def _may_fit(wanted: str, machine_name: str) -> bool:
    name = read_gpu_name(wanted)
    return gpu_fits(wanted, machine_name, name.memory_gb)


def is_matched_more_loosely(wanted: str, machine_names: Iterable[str]) -> bool:
    """Whether a server that looks for short types inside full names could take a machine that was not wanted.

    How the API matches is not known: `RTXPRO6000` is in `RTX PRO 6000D`, `H20` in `H200`.
    """
    shorts = {_compact(short_gpu_type(name)) for name in matching_machine_names(wanted, machine_names)}
    return any(short in _compact(name) and not gpu_fits(wanted, name) for name in machine_names for short in shorts)


def nearest_names(wanted: str, labels: Iterable[str]) -> list[str]:
    """Sort labels by how near they are to the words, nearest first."""
    parts = [_compact(part) for part in gpu_names(wanted)] or [""]

    def nearness(label: str) -> float:
        theirs = _compact(label)
        return max(SequenceMatcher(None, part[:_MOST_CHARACTERS], theirs).ratio() for part in parts)

    return sorted(set(labels), key=lambda label: (-nearness(label), label))


def models_of(wanted: str, machine_names: Sequence[str]) -> list[str]:
    """The models that a name may mean, out of these machines; more than one where the name is not clear."""
    return sorted({gpu_model(name) for name in matching_machine_names(wanted, machine_names)})


def _compact(text: str) -> str:
    return re.sub(r"[^A-Z0-9]", "", text[:_MOST_CHARACTERS].upper())
