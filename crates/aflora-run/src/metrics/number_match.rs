//! The usual rule for GSM8K: the share of texts whose last number is the right text's answer.

pub(super) fn number_match(answers: &[String], right: &[String]) -> Vec<f64> {
    let same = |(answer, right): (&String, &String)| f64::from(same_number(answer, right));
    answers.iter().zip(right).map(same).collect()
}

/// Whether the last number in `written` is the answer of `wanted`: what follows its last `####`,
/// or else its own last number.
fn same_number(written: &str, wanted: &str) -> bool {
    let answer = wanted.rsplit_once("####").map_or(wanted, |(_, answer)| answer);
    match (last_number(written), last_number(answer)) {
        (Some(found), Some(right)) => (found - right).abs() < 1e-6 * right.abs().max(1.0),
        _ => false,
    }
}

/// The last number of a text: digits with commas between thousands, a decimal point, a sign.
///
/// A minus counts as a sign where no digit or letter stands before it (`10-3` ends in 3), also
/// before a currency (`-$5`). What follows the digits (`18.`, `18%`, `18,`) is left aside.
pub fn last_number(text: &str) -> Option<f64> {
    let chars: Vec<char> = text.chars().collect();
    let digit = |i: usize| chars.get(i).is_some_and(char::is_ascii_digit);
    let (mut i, mut last) = (0, None);
    while i < chars.len() {
        let fraction = chars[i] == '.' && digit(i + 1) && (i == 0 || !digit(i - 1));
        if !digit(i) && !fraction {
            i += 1;
            continue;
        }
        let start = i;
        let mut number = String::new();
        while digit(i) || (chars.get(i) == Some(&',') && digit(i - 1) && digit(i + 1)) {
            if chars[i] != ',' {
                number.push(chars[i]);
            }
            i += 1;
        }
        if chars.get(i) == Some(&'.') && digit(i + 1) {
            number.push('.');
            i += 1;
            while digit(i) {
                number.push(chars[i]);
                i += 1;
            }
        }
        let value: Option<f64> = number.parse().ok();
        last = value.map(|v| if is_negative(&chars[..start]) { -v } else { v }).or(last);
    }
    last
}

/// Whether what stands before a number ends in a minus sign of it.
fn is_negative(before: &[char]) -> bool {
    let before = match before {
        [rest @ .., '$' | '€' | '£'] => rest,
        all => all,
    };
    match before {
        [.., previous, '-' | '−'] => !previous.is_alphanumeric() && *previous != ')',
        ['-' | '−'] => true,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_number_is_read_as_people_write_it() {
        for (text, number) in [
            ("The answer is 18.", 18.0),
            ("It costs $1,234,567.50 in all", 1_234_567.5),
            ("5 - 12 = -7", -7.0),
            ("he owes -$5.", -5.0),
            ("10-3", 3.0),
            ("x = −4", -4.0),
            ("(2+3)-1", 1.0),
            ("half, .5", 0.5),
            ("one, 2, 3, and so on", 3.0),
            ("18%", 18.0),
            ("#### 72", 72.0),
            ("version 1.2.3", 3.0),
        ] {
            assert_eq!(last_number(text), Some(number), "{text}");
        }
        for text in ["", "none", "-", "..", "$", "，"] {
            assert_eq!(last_number(text), None, "{text}");
        }
    }

    #[test]
    fn the_answer_stands_behind_the_marks() {
        let wanted = "She makes 9 * 2 = $<<9*2=18>>18 a day.\n#### 1,018";
        assert!(same_number("So it is 1018.00", wanted));
        assert!(!same_number("So it is 18", wanted));
        assert!(!same_number("So it is -1018", wanted));
        assert!(!same_number("I do not know", wanted));
        assert!(same_number("seven is 7", "7"));
    }
}
