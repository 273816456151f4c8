//! What ranks say to each other beside their work: short frames on a TCP connection.

use std::io::{self, Read, Write};

/// The most bytes of words: a stranger at the port makes nobody take more.
const LONGEST: usize = 1 << 16;

/// One saying.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Frame {
    /// The first: who speaks, and the token that shows that it is of this world.
    Hello { rank: u64, token: [u8; 16] },
    /// It lives, and has come to so many collectives.
    Beat(u64),
    /// It fails, for this reason.
    Failed(String),
    /// This rank is lost, and how.
    Lost { rank: u64, how: String },
    /// It ends as it should.
    Leaves,
}

impl Frame {
    /// Writes it at once.
    pub fn write(&self, to: &mut impl Write) -> io::Result<()> {
        let (tag, body) = match self {
            Frame::Hello { rank, token } => (b'h', [&rank.to_le_bytes()[..], token].concat()),
            Frame::Beat(count) => (b'b', count.to_le_bytes().to_vec()),
            Frame::Failed(words) => (b'f', bounded(words)),
            Frame::Lost { rank, how } => (b'l', [&rank.to_le_bytes()[..], &bounded(how)].concat()),
            Frame::Leaves => (b'q', Vec::new()),
        };
        let mut bytes = vec![tag];
        bytes.extend((body.len() as u32).to_le_bytes());
        bytes.extend(body);
        to.write_all(&bytes)
    }

    /// Waits for the next.
    pub fn read(from: &mut impl Read) -> io::Result<Frame> {
        let invalid = || io::Error::from(io::ErrorKind::InvalidData);
        let mut head = [0; 5];
        from.read_exact(&mut head)?;
        let length = u32::from_le_bytes([head[1], head[2], head[3], head[4]]) as usize;
        if length > LONGEST + 8 {
            return Err(invalid());
        }
        let mut body = vec![0; length];
        from.read_exact(&mut body)?;
        let number = |bytes: &[u8]| bytes.first_chunk().map(|b| u64::from_le_bytes(*b));
        let words = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        match head[0] {
            b'h' => match (number(&body), body.get(8..).and_then(|b| b.try_into().ok())) {
                (Some(rank), Some(token)) => Ok(Frame::Hello { rank, token }),
                _ => Err(invalid()),
            },
            b'b' => number(&body).map(Frame::Beat).ok_or_else(invalid),
            b'f' => Ok(Frame::Failed(words(&body))),
            b'l' => match number(&body) {
                Some(rank) => Ok(Frame::Lost { rank, how: words(&body[8..]) }),
                None => Err(invalid()),
            },
            b'q' => Ok(Frame::Leaves),
            _ => Err(invalid()),
        }
    }
}

fn bounded(words: &str) -> Vec<u8> {
    words.as_bytes()[..words.len().min(LONGEST)].to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_comes_as_it_went_and_half_of_one_is_an_error() {
        let frames = [
            Frame::Hello { rank: 3, token: [7; 16] },
            Frame::Beat(u64::MAX),
            Frame::Failed("no such file: ä".into()),
            Frame::Lost { rank: 2, how: "it died".into() },
            Frame::Leaves,
        ];
        for frame in frames {
            let mut bytes = Vec::new();
            frame.write(&mut bytes).unwrap();
            assert_eq!(Frame::read(&mut &bytes[..]).unwrap(), frame);
            for end in 0..bytes.len() {
                assert!(Frame::read(&mut &bytes[..end]).is_err());
            }
        }
    }

    #[test]
    fn a_stranger_s_bytes_are_an_error_and_take_no_memory() {
        for bytes in
            [&b"GET / HTTP/1.1\r\n\r\n"[..], b"h\x02\0\0\0ab", b"l\x01\0\0\0a", b"x\0\0\0\0"]
        {
            assert_eq!(Frame::read(&mut &*bytes).unwrap_err().kind(), io::ErrorKind::InvalidData);
        }
    }
}
