//! Days and hours as a policy writes them: `{ days = ["mon", "fri"], hours = "09:00-18:00", zone = "Europe/Berlin" }`.

use std::collections::BTreeSet;

use enforcer_proto::policy::{Day, MINUTES_PER_DAY, Schedule};
use jiff::tz::TimeZone;
use serde::Deserialize;

/// As it is written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ScheduleFile {
    /// The days on which a span begins; all seven when absent.
    days: Option<BTreeSet<String>>,
    /// From when until when, `HH:MM-HH:MM`; the end may lie on the next day.
    hours: String,
    /// The time zone by its name in the host's database; UTC when absent.
    zone: Option<String>,
}

impl ScheduleFile {
    pub(super) fn resolve(self) -> Result<Schedule, String> {
        let days: BTreeSet<Day> = match self.days {
            None => Day::ALL.into(),
            Some(days) => days
                .iter()
                .map(|text| day(text))
                .collect::<Result<_, _>>()?,
        };
        let (from_minute, until_minute) = hours(&self.hours).ok_or_else(|| {
            format!(
                "`{}` are no hours: write them as 09:00-18:00",
                self.hours.escape_debug()
            )
        })?;
        if days.is_empty() || from_minute == until_minute {
            return Err("`auto_approve` names no time at all".into());
        }
        let zone = match self.zone {
            None => TimeZone::UTC,
            Some(name) => TimeZone::get(&name)
                .map_err(|error| format!("the time zone is not known on this host: {error}"))?,
        };
        Ok(Schedule {
            days,
            from_minute,
            until_minute,
            zone,
        })
    }
}

fn day(text: &str) -> Result<Day, String> {
    let mut all = Day::ALL.into_iter();
    all.find(|day| day.as_str() == text).ok_or_else(|| {
        let names = Day::ALL.map(Day::as_str).join(", ");
        format!("`{}` is no day: {names}", text.escape_debug())
    })
}

/// Minutes of the day.
fn hours(text: &str) -> Option<(u16, u16)> {
    let (from, until) = text.split_once('-')?;
    Some((minute(from)?, minute(until)?))
}

/// `24:00` is the end of a day.
fn minute(text: &str) -> Option<u16> {
    let (hour, minute) = text.split_once(':')?;
    let two = |text: &str| {
        let is_two = text.len() == 2 && text.bytes().all(|b| b.is_ascii_digit());
        is_two.then(|| text.parse::<u16>().ok()).flatten()
    };
    let (hour, minute) = (two(hour)?, two(minute)?);
    let at = hour * 60 + minute;
    (minute < 60 && at <= MINUTES_PER_DAY).then_some(at)
}

/// `90s`, `15m`, `1h`, or nothing: `0s`.
pub(super) fn parse_seconds(text: &str) -> Option<u64> {
    let (digits, unit) = match text.char_indices().next_back()? {
        (at, 's') => (&text[..at], 1),
        (at, 'm') => (&text[..at], 60),
        (at, 'h') => (&text[..at], 3600),
        _ => return None,
    };
    let is_number = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
    let count: u64 = is_number.then(|| digits.parse().ok()).flatten()?;
    count.checked_mul(unit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hours_are_written_in_one_way() {
        assert_eq!(hours("09:00-18:30"), Some((540, 1110)));
        assert_eq!(hours("22:00-06:00"), Some((1320, 360)));
        assert_eq!(hours("00:00-24:00"), Some((0, MINUTES_PER_DAY)));
        for text in [
            "9-18",
            "09:00",
            "09:00-24:01",
            "09:60-10:00",
            "+9:00-10:00",
            "09:00-10:00-11:00",
        ] {
            assert_eq!(hours(text), None, "{text}");
        }
    }

    #[test]
    fn a_wait_may_be_none_and_has_a_unit() {
        assert_eq!(
            ["0s", "90s", "15m", "1h"].map(parse_seconds),
            [Some(0), Some(90), Some(900), Some(3600)]
        );
        for text in ["", "s", "1", "-1s", "1d", "99999999999999999999h"] {
            assert_eq!(parse_seconds(text), None, "{text}");
        }
    }
}
