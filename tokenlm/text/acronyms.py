"""Words by their capitals: acronyms, camelCase, letters joined to digits, shouted sentences."""

from __future__ import annotations

import re

from tokenlm.text.numerals import code_number, plural

_SAID_AS_WORDS = frozenset(
    "NASA NATO UNESCO UNICEF OPEC FIFA UEFA AIDS LASER RADAR SCUBA SONAR COVID SARS MERS RAM "
    "ROM SIM PIN GIF LAN SAT ACT NAFTA ASEAN DARPA NOAA FEMA OSHA MIDI JPEG MPEG ASCII YAML "
    "JSON LATEX SWAT YOLO FOMO POTUS SCOTUS MENSA CERN ESA IKEA LEGO VISA NASDAQ HIPAA BASIC "
    "COBOL FORTRAN LISP PEP GAN GANS BERT LORA CRUD NAND FLAC WAV ISIS INTERPOL IMAX TED GUI "
    "NIMBY ZIP BIOS DOS CAD TASER RAID SQUID MASH DRAM SRAM REST SOAP CAPTCHA CUDA UNIX "
    "LINUX ERIC AWOL ICE SALT START SIDS MOMA PETA OK".split()
)
_SPELLED = frozenset(
    "FBI CIA NSA USA UK EU UN US USSR UAE HTML HTTP HTTPS URL SQL API CPU GPU TPU TV DVD CD "
    "PC AI IT HR CEO CFO CTO COO VIP ASAP FAQ DIY ATM GPS USB BBC CNN NBC ABC CBS ESPN MTV "
    "NBA NFL NHL MLB UFC IRS FDA CDC EPA DNA RNA HIV MRI PHD BMW IBM HP AMD LED LCD AC DC FM "
    "AM PM ID RIP BTW IMO LOL OMG FYI TBA TBD AKA ETA IQ EQ GDP IMF WHO WTO LGBT LLC LLM "
    "LLMS TTS ASR NLP IEEE ISBN ACLU NAACP UCLA MIT YMCA NCAA IPO SUV UFO IOU IOS PDF XML "
    "CSS PHP IP TCP UDP SSH FTP DJ MC MP MVP NGO POV PTSD ADHD OCD RPG RSVP SOS UV VPN WWF "
    "XL YTD EDT EST PST GMT UTC ISO CAPS AAA AARP OECD ACID APA ARPA ATV AWS BBQ CGI CPR CV DOJ "
    "DUI EMI EMT ER ESL EV FAA FCC GED GMO GOP ICU IDE ISP IUD IVF LAPD NYPD NYSE NYC LA DC "
    "JFK MLK FDR LBJ KFC KGB MBA MI6 NRA OPI PBS PS QA RSS SDK SEO SMS SSD TLC UI UX VAT VC "
    "WWI YA IPA ETF AGI RL GRPO DPO CTC EMA AUX EULA".split()
) - {"CAPS", "ACID", "ARPA", "AUX", "EULA"}
_COMMON = frozenset(
    "A I AN AS AT BE BY DO GO HE HI IF IN IS ME MY NO OF OH ON OR SO TO UP WE AH HA HO HEY "
    "AND THE FOR NOT BUT YOU ALL ANY CAN HAD HAS HER HIM HIS HOW ITS LET MAY NEW NOW OLD ONE "
    "OUR OUT OWN SAY SEE SHE TOO TWO USE WAS WAY WHY YES YET ARE BAD BIG BOY BUY CAR CAT CUT "
    "DAD DAY DID DIE DOG EAT END FAR FEW FUN GET GOD GOT GUN GUY HIT HOT JOB KEY KID LAW LAY "
    "LIE LOT LOW MAN MEN MOM MUM NOR OFF OIL PAY PUT RED RUN SAD SAT SET SIT SIX SON SUN TAX "
    "TEN TOP TRY WAR WIN WON WOW YEP NAH HUH DUH AHA HMM SHH UGH MAD WET DRY ILL AGO AIR ADD "
    "AGE ASK BED BOX EGG EYE FLY FIX GAS HAT ICE LEG LIP MAP MIX NET NUT PEN PET PIE POP RAT "
    "ROW SEA SEX SKY TEA TIE TIP TOE TOY VAN ZOO ONTO FREE STOP HELP NEVER ONLY MUST VERY".split()
)
_FIXED = {
    "ok": "okay", "phd": "p h d", "latex": "latex", "ios": "i o s", "ipados": "ipad o s",
    "macos": "mac o s", "wifi": "wi-fi", "mph": "m p h", "nlp": "n l p", "ebook": "e-book",
    "iot": "i o t", "yoy": "year over year", "sqlite": "s q lite", "mysql": "my s q l",
    "javascript": "javascript", "ieee": "i triple e", "pc": "p c", "tv": "t v", "mri": "m r i",
    "wwi": "world war one", "wwii": "world war two",
}  # fmt: skip
SOUNDS = frozenset(
    "hm hmm mm mmm brr grr shh sh psst pst tsk pfft zzz zz hmph mhm mhmm pff psh pssh tch bzz bzzt "
    "hrm aww eww".split()
)
"""Interjections that are no letters, though most have no vowel; lexica say how they sound."""
_INTERJECTIONS = SOUNDS | frozenset("nth th st nd rd ll ve re ng".split())
_HYPHENED = frozenset(
    "wi-fi hi-fi lo-fi sci-fi e-mail e-mails x-ray x-rays t-shirt t-shirts".split()
)
_ONSETS = frozenset(
    "b bl br c ch chr cl cr d dr dw f fl fr g gh gl gn gr h j k kh kl kn kr l m n p ph pl pr "
    "ps qu r rh s sc sch scr sh shr sk sl sm sn sp sph spl spr squ st str sw t th thr tr "
    "tw v w wh wr y z".split()
)
_CODAS = frozenset(
    " b c d f g k l m n p r s t v w x z bs ck cks ct cts ch cs dd ds ff ft gg ggs ght ghts gs gh "
    "ks ld lds lf lk ll lls lm lp ls lt lts mb mp mps ms nc nd nds ng ngs nk nks ns nst nt nth nts "
    "ph ps pt pts rb rc rd rds rf rg rk rks rl rm rms rn rns rp rs rst rt rth rts sc sh sk sks sm "
    "sp ss st sts tch th ths ts tt wl wn ws xt xts zz".split(" ")
)
_VOWELS = re.compile(r"[aeiouy]")

_TOKEN = re.compile(r"[A-Za-z0-9]++(?:['-][A-Za-z0-9]++)*")
_PLAIN = re.compile(r"[A-Za-z]?[a-z]+(?:-[a-z]+)*")
_CAMEL = re.compile(r"(?:Mc|Mac|De|La|Le|Van|Fitz)[A-Z][a-z]+|[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[0-9]+")
_PLURAL = re.compile(r"([A-Z]{2,8})(?:'?s|'S)")
_POSSESSIVE = re.compile(r"(.{1,40}?)'(s|S|t|T|ll|LL|re|RE|ve|VE|m|M|d|D)")
_SENTENCE = re.compile(r"[^.!?\n]*[.!?\n]*")
_WORD = re.compile(r"(?<![A-Za-z0-9.&])[A-Za-z]{2,}(?:'[A-Za-z]+)?(?![A-Za-z0-9&])")
_REPEATED = re.compile(r"([a-z])\1{2,}")


def lower_shouting(text: str) -> str:
    """Lower the sentences written all in capitals, except acronyms that are known as such."""
    return _SENTENCE.sub(_calm, text) if _WORD.search(text) else text


def _calm(match: re.Match[str]) -> str:
    words = _WORD.findall(match.group())
    if len(words) < 2 or any(not word.isupper() for word in words):
        return match.group()
    wordlike = [
        word
        for word in words
        if word in _COMMON or "'" in word or (len(word) > 3 and not is_spelled(word))
    ]
    if len(wordlike) * 2 < len(words):
        return match.group()
    return _WORD.sub(_calm_word, match.group())


def _calm_word(match: re.Match[str]) -> str:
    word = match.group()
    # Between shouted words these are pronouns and prepositions more often than acronyms.
    return word if word in _SPELLED - {"US", "IT", "AM", "WHO", "ID"} else word.lower()


def expand_acronyms(text: str) -> str:
    """Spell initialisms, part camelCase and letter-digit names, lower everything else."""
    return _TOKEN.sub(_token, text)


def _token(match: re.Match[str]) -> str:
    token = match.group()
    if token.isdigit() or not any(sign.isalpha() for sign in token):
        return token
    if token.lower().removesuffix("'s") in _HYPHENED:
        return token.lower()
    parts = token.split("-")
    words = last = _speak(parts[0], joined=len(parts) > 1)
    for before, part in zip(parts, parts[1:], strict=False):
        spoken = _speak(part, joined=True)
        # Only two words keep their hyphen: spelled letters and numbers stand apart.
        are_words = before.isalpha() and part.isalpha() and not (before + part).isupper()
        tight = are_words and " " not in last and " " not in spoken
        words += f"-{spoken}" if tight else f" {spoken}"
        last = spoken
    return words


def _speak(part: str, *, joined: bool = False) -> str:
    """One token without hyphens."""
    if part.lower() in _FIXED:
        return _FIXED[part.lower()]
    if part.isdigit():
        return code_number(part) if joined else part
    if _PLAIN.fullmatch(part):
        return _word(part)
    several = _PLURAL.fullmatch(part)
    if several and (several[1] not in _COMMON or part[-1] == "s"):
        return _capitals(several[1], "'s")
    possessive = _POSSESSIVE.fullmatch(part)
    if possessive:
        base, suffix = possessive.groups()
        is_contraction = suffix in ("T", "LL", "RE", "VE", "M", "D")
        return f"{base.lower() if is_contraction else _speak(base)}'{suffix.lower()}"
    if part[-1] == "s" and part[-2:-1].isdigit():
        return plural(_speak(part[:-1], joined=True))
    if "'" in part:
        return part.lower()
    if part.isupper() and part.isalpha():
        return _capitals(part)
    has_digits = any(sign.isdigit() for sign in part)
    return " ".join(_piece(piece, has_digits) for piece in _CAMEL.findall(part))


def _piece(piece: str, has_digits: bool) -> str:
    if piece.isdigit():
        return code_number(piece)
    if piece.isupper() and len(piece) > 1:
        # Next to digits capitals are a code (RTX4090), whatever they would sound like.
        is_code = has_digits and len(piece) < 4
        return (
            " ".join(piece.lower()) if is_code and piece not in _SAID_AS_WORDS else _capitals(piece)
        )
    return _word(piece)


def _capitals(letters: str, suffix: str = "") -> str:
    if len(letters) > 2 and letters not in _SPELLED:
        sound = _REPEATED.sub(r"\1\1", letters.lower())
        if sound in SOUNDS:
            return _word(letters)
    if is_spelled(letters):
        return " ".join(letters.lower()) + suffix
    word = _FIXED.get(letters.lower()) or _word(letters)
    return word + (suffix.lstrip("'") if suffix and letters in _SAID_AS_WORDS else suffix)


def _word(word: str) -> str:
    """A word in lower case; one without any vowel is spelled, drawn-out letters are shortened."""
    lower = word.lower()
    if lower in _INTERJECTIONS or len(lower) == 1:
        return lower
    has_vowel = _VOWELS.search(lower)
    if not has_vowel or lower.endswith("ww"):
        short = _REPEATED.sub(r"\1\1", lower)
        if short in _INTERJECTIONS:
            return "zzz" if short == "zz" else short
    if not has_vowel:
        return " ".join(lower) if len(lower) <= 6 else lower
    return _REPEATED.sub(_shorten, lower)


def _shorten(match: re.Match[str]) -> str:
    inside = match.end() < len(match.string)
    return match[1] * (2 if inside and match[1] in "eo" else 1)


def is_spelled(letters: str) -> bool:
    """Whether a run of capitals is said letter by letter."""
    if letters in _SPELLED:
        return True
    if letters in _SAID_AS_WORDS or letters in _COMMON:
        return False
    return len(letters) < 4 or not _is_pronounceable(letters.lower())


def _is_pronounceable(word: str) -> bool:
    vowel = re.search(r"[aeiou]|(?<=.)y", word)
    if not vowel:
        return False
    if len(word) > 6:
        return True
    onset = word[: vowel.start()]
    coda = word[len(word.rstrip("bcdfghjklmnpqrstvwxz")) :]
    return (
        (not onset or onset in _ONSETS)
        and coda in _CODAS
        and not re.search(r"[aeiou]{4}|aa|ii|uu|[^aeiouy]{4}", word)
    )
