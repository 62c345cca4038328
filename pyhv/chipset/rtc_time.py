"""The MC146818's calendar: its ten time registers as numbers, in the encodings that register B selects.

Source: Motorola MC146818A data sheet, "time, calendar and alarm locations". Register values that are no valid date are
carried over as arithmetic does (the 31st of February is the 3rd of March), never refused.
"""

from __future__ import annotations

from pyhv.record import record

SECONDS, SECONDS_ALARM, MINUTES, MINUTES_ALARM, HOURS, HOURS_ALARM, WEEKDAY, DAY, MONTH, YEAR = range(10)
DAY_SECONDS = 86_400
PM = 0x80
ANY = 0xC0
"""An alarm register with both high bits set matches everything."""


@record(frozen=True)
class Encoding:
    """How numbers look in the registers."""

    binary: bool
    hours_24: bool

    def encode(self, value: int) -> int:
        """A number from 0 to 99 as a register."""
        return value if self.binary else value // 10 << 4 | value % 10

    def decode(self, raw: int) -> int:
        """A register as a number."""
        return raw if self.binary else (raw >> 4) * 10 + (raw & 15)

    def encode_hour(self, hour: int) -> int:
        """An hour from 0 to 23; bit 7 is the afternoon on a 12-hour clock."""
        if self.hours_24:
            return self.encode(hour)
        return self.encode(hour % 12 or 12) | (PM if hour >= 12 else 0)

    def decode_hour(self, raw: int) -> int:
        """The inverse; invalid hours give some number."""
        if self.hours_24:
            return self.decode(raw)
        return self.decode(raw & ~PM) % 12 + (12 if raw & PM else 0)


def days_from_civil(year: int, month: int, day: int) -> int:
    """Days since 1970-01-01 in the proleptic Gregorian calendar; months beyond 12 run on into later years."""
    years, month0 = divmod(month - 1, 12)
    year += years
    # Count from March, so that the leap day is the year's last.
    year -= month0 < 2
    return 365 * year + year // 4 - year // 100 + year // 400 + (153 * ((month0 + 10) % 12) + 2) // 5 + day - 719_469


def civil_from_days(days: int) -> tuple[int, int, int]:
    """Year, month, day of a number of days since 1970-01-01."""
    days += 719_468
    era, of_era = divmod(days, 146_097)
    year = (of_era - of_era // 1460 + of_era // 36_524 - of_era // 146_096) // 365
    of_year = of_era - (365 * year + year // 4 - year // 100)
    month = (5 * of_year + 2) // 153
    day = of_year - (153 * month + 2) // 5 + 1
    return year + 400 * era + (month >= 10), (month + 2) % 12 + 1, day


def weekday(days: int) -> int:
    """1 is Sunday."""
    return (days + 4) % 7 + 1


def next_alarm(after: int, seconds: int | None, minutes: int | None, hours: int | None) -> int | None:
    """The first second after `after` (both since the epoch) at which the alarm matches; None matches everything.

    Returns None when no time of day does.
    """
    candidates = [
        range(limit) if want is None else ((want,) if want < limit else ())
        for want, limit in ((hours, 24), (minutes, 60), (seconds, 60))
    ]
    if not all(candidates):
        return None
    midnight = after - after % DAY_SECONDS
    for day in (midnight, midnight + DAY_SECONDS):
        for hour in candidates[0]:
            if day + hour * 3600 + 3599 <= after:
                continue
            for minute in candidates[1]:
                base = day + hour * 3600 + minute * 60
                if base + 59 <= after:
                    continue
                for second in candidates[2]:
                    if base + second > after:
                        return base + second
    return None
