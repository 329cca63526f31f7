//! When a rule opens without a person: days of the week and hours of the day, in a time zone. It reads no clock and no file: both are given.

use std::collections::BTreeSet;
use std::fmt;

use jiff::Timestamp;
use jiff::tz::TimeZone;

/// Minutes of a day.
pub const MINUTES_PER_DAY: u16 = 24 * 60;

/// A day of the week.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Day {
    /// Monday.
    Mon,
    /// Tuesday.
    Tue,
    /// Wednesday.
    Wed,
    /// Thursday.
    Thu,
    /// Friday.
    Fri,
    /// Saturday.
    Sat,
    /// Sunday.
    Sun,
}

impl Day {
    /// All seven, Monday first.
    pub const ALL: [Self; 7] = [
        Self::Mon,
        Self::Tue,
        Self::Wed,
        Self::Thu,
        Self::Fri,
        Self::Sat,
        Self::Sun,
    ];

    /// The day as it is written in a policy.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Mon => "mon",
            Self::Tue => "tue",
            Self::Wed => "wed",
            Self::Thu => "thu",
            Self::Fri => "fri",
            Self::Sat => "sat",
            Self::Sun => "sun",
        }
    }

    const fn of(weekday: jiff::civil::Weekday) -> Self {
        use jiff::civil::Weekday;
        match weekday {
            Weekday::Monday => Self::Mon,
            Weekday::Tuesday => Self::Tue,
            Weekday::Wednesday => Self::Wed,
            Weekday::Thursday => Self::Thu,
            Weekday::Friday => Self::Fri,
            Weekday::Saturday => Self::Sat,
            Weekday::Sunday => Self::Sun,
        }
    }

    const fn before(self) -> Self {
        match self {
            Self::Mon => Self::Sun,
            Self::Tue => Self::Mon,
            Self::Wed => Self::Tue,
            Self::Thu => Self::Wed,
            Self::Fri => Self::Thu,
            Self::Sat => Self::Fri,
            Self::Sun => Self::Sat,
        }
    }
}

/// Days and hours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Schedule {
    /// The days on which a span begins.
    pub days: BTreeSet<Day>,
    /// The first minute of the day that belongs to it.
    pub from_minute: u16,
    /// The first that does not any more. Not after `from_minute`: it goes on into the next day.
    pub until_minute: u16,
    /// Where the clock hangs.
    pub zone: TimeZone,
}

impl Schedule {
    /// How long a span of it is, minutes; a clock that is set for the summer apart.
    #[must_use]
    pub const fn minutes(&self) -> u16 {
        if self.from_minute < self.until_minute {
            self.until_minute - self.from_minute
        } else {
            MINUTES_PER_DAY - self.from_minute + self.until_minute
        }
    }

    /// Whether it covers this moment. A moment that no calendar has is not covered.
    #[must_use]
    pub fn covers(&self, unix_ns: u64) -> bool {
        let Ok(moment) = Timestamp::from_nanosecond(i128::from(unix_ns)) else {
            return false;
        };
        let local = self.zone.to_datetime(moment);
        let minute =
            u16::from(local.hour().unsigned_abs()) * 60 + u16::from(local.minute().unsigned_abs());
        let today = Day::of(local.weekday());
        if self.from_minute < self.until_minute {
            let span = self.from_minute..self.until_minute;
            return self.days.contains(&today) && span.contains(&minute);
        }
        let evening = minute >= self.from_minute && self.days.contains(&today);
        let morning = minute < self.until_minute && self.days.contains(&today.before());
        evening || morning
    }
}

impl fmt::Display for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let days: Vec<&str> = self.days.iter().map(|day| day.as_str()).collect();
        let zone = self.zone.iana_name().unwrap_or("UTC");
        let time = |minute: u16| format!("{:02}:{:02}", minute / 60, minute % 60);
        write!(
            f,
            "{} {}-{} {zone}",
            days.join(" "),
            time(self.from_minute),
            time(self.until_minute)
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn schedule(days: &[Day], from: u16, until: u16) -> Schedule {
        Schedule {
            days: days.iter().copied().collect(),
            from_minute: from * 60,
            until_minute: until * 60,
            zone: TimeZone::UTC,
        }
    }

    fn unix_ns(text: &str) -> u64 {
        let moment: Timestamp = text.parse().expect("a moment");
        u64::try_from(moment.as_nanosecond()).expect("after 1970")
    }

    #[test]
    fn office_hours_end_with_the_minute_that_is_named() {
        let office = schedule(&[Day::Thu], 9, 18);
        // 26 November 2026 is a Thursday.
        for (text, covered) in [
            ("2026-11-26T08:59:59Z", false),
            ("2026-11-26T09:00:00Z", true),
            ("2026-11-26T17:59:59Z", true),
            ("2026-11-26T18:00:00Z", false),
            ("2026-11-27T09:00:00Z", false),
        ] {
            assert_eq!(office.covers(unix_ns(text)), covered, "{text}");
        }
        assert_eq!(office.to_string(), "thu 09:00-18:00 UTC");
    }

    #[test]
    fn a_night_belongs_to_the_day_on_which_it_begins() {
        let night = schedule(&[Day::Thu], 22, 6);
        for (text, covered) in [
            ("2026-11-26T05:00:00Z", false),
            ("2026-11-26T22:00:00Z", true),
            ("2026-11-27T05:59:59Z", true),
            ("2026-11-27T06:00:00Z", false),
            ("2026-11-27T22:00:00Z", false),
        ] {
            assert_eq!(night.covers(unix_ns(text)), covered, "{text}");
        }
    }
}
