//! What changes between two texts, line by line.

/// The most pairs of lines that are compared; past it everything between the common head and tail counts as replaced.
const PAIRS_MAX: usize = 1 << 20;

/// One line of the old text, the new one, or both.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Line<'a> {
    Kept(&'a str),
    Gone(&'a str),
    New(&'a str),
}

/// How `old` becomes `new`, keeping as many lines as can be.
pub(super) fn lines<'a>(old: &'a str, new: &'a str) -> Vec<Line<'a>> {
    let (old, new): (Vec<&str>, Vec<&str>) = (old.lines().collect(), new.lines().collect());
    let head = common(old.iter(), new.iter());
    let (head, old, new) = (&old[..head], &old[head..], &new[head..]);
    let tail = common(old.iter().rev(), new.iter().rev());
    let (old, tail) = old.split_at(old.len() - tail);
    let new = &new[..new.len() - tail.len()];
    let mut out: Vec<Line<'_>> = head.iter().copied().map(Line::Kept).collect();
    if old.len().saturating_mul(new.len()) > PAIRS_MAX {
        out.extend(old.iter().copied().map(Line::Gone));
        out.extend(new.iter().copied().map(Line::New));
    } else {
        between(old, new, &mut out);
    }
    out.extend(tail.iter().copied().map(Line::Kept));
    out
}

fn common<'a>(
    old: impl Iterator<Item = &'a &'a str>,
    new: impl Iterator<Item = &'a &'a str>,
) -> usize {
    old.zip(new).take_while(|(old, new)| old == new).count()
}

/// By the longest common subsequence: `kept[i][j]` is how many lines of `old[i..]` and `new[j..]` can stay.
fn between<'a>(old: &[&'a str], new: &[&'a str], out: &mut Vec<Line<'a>>) {
    let mut kept = vec![vec![0_u32; new.len() + 1]; old.len() + 1];
    for i in (0..old.len()).rev() {
        for j in (0..new.len()).rev() {
            kept[i][j] = if old[i] == new[j] {
                kept[i + 1][j + 1] + 1
            } else {
                kept[i + 1][j].max(kept[i][j + 1])
            };
        }
    }
    let (mut i, mut j) = (0, 0);
    while i < old.len() && j < new.len() {
        if old[i] == new[j] {
            out.push(Line::Kept(old[i]));
            (i, j) = (i + 1, j + 1);
        } else if kept[i + 1][j] >= kept[i][j + 1] {
            out.push(Line::Gone(old[i]));
            i += 1;
        } else {
            out.push(Line::New(new[j]));
            j += 1;
        }
    }
    out.extend(old[i..].iter().copied().map(Line::Gone));
    out.extend(new[j..].iter().copied().map(Line::New));
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn only_what_changed_is_gone_or_new() {
        let changed = lines("a\nb\nc\nd\n", "a\nx\nc\ny\nd\n");
        assert_eq!(
            changed,
            [
                Line::Kept("a"),
                Line::Gone("b"),
                Line::New("x"),
                Line::Kept("c"),
                Line::New("y"),
                Line::Kept("d")
            ]
        );
    }

    proptest! {
        #[test]
        fn what_is_kept_and_gone_is_the_old_text_and_what_is_kept_and_new_the_new_one(old in "([abc]\n){0,12}", new in "([abc]\n){0,12}") {
            let (mut before, mut after) = (String::new(), String::new());
            for line in lines(&old, &new) {
                let (Line::Kept(text) | Line::Gone(text) | Line::New(text)) = line;
                if !matches!(line, Line::New(_)) {
                    before += &format!("{text}\n");
                }
                if !matches!(line, Line::Gone(_)) {
                    after += &format!("{text}\n");
                }
            }
            prop_assert_eq!((before, after), (old, new));
        }
    }
}
