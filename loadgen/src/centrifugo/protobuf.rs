//! Commands and replies as Protobuf: what little of it a subscriber needs, by hand. Fields that are not known are skipped.

use super::{CONNECT, Join, Malformed, Publication, Reply, SUBSCRIBE, Subscribed, Word};
use std::borrow::Cow;

/// Appends both commands.
pub(super) fn write(out: &mut Vec<u8>, join: &Join<'_>) {
    let mut body = Vec::new();
    if !join.token.is_empty() {
        bytes(&mut body, 1, join.token.as_bytes());
    }
    command(out, CONNECT, 4, &body);
    if join.channel.is_empty() {
        return;
    }
    body.clear();
    bytes(&mut body, 1, join.channel.as_bytes());
    if let Some((epoch, offset)) = join.position() {
        number(&mut body, 3, 1);
        bytes(&mut body, 6, epoch.as_bytes());
        number(&mut body, 7, offset);
    }
    if join.returns {
        number(&mut body, 10, 1);
    }
    command(out, SUBSCRIBE, 5, &body);
}

/// Appends a command: its length, its id, and the request in a field of its own.
fn command(out: &mut Vec<u8>, id: u64, field: u64, request: &[u8]) {
    let mut body = Vec::with_capacity(request.len() + 8);
    number(&mut body, 1, id);
    bytes(&mut body, field, request);
    varint(out, body.len() as u64);
    out.extend_from_slice(&body);
}

fn number(out: &mut Vec<u8>, field: u64, value: u64) {
    varint(out, field << 3);
    varint(out, value);
}

fn bytes(out: &mut Vec<u8>, field: u64, value: &[u8]) {
    varint(out, field << 3 | 2);
    varint(out, value.len() as u64);
    out.extend_from_slice(value);
}

fn varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// A field's value.
#[derive(Clone, Copy, Debug)]
enum Value<'a> {
    Number(u64),
    Bytes(&'a [u8]),
    /// Four or eight bytes, which nothing here has.
    Fixed,
}

impl<'a> Value<'a> {
    fn number(self) -> Result<u64, Malformed> {
        if let Self::Number(number) = self { Ok(number) } else { Err(Malformed) }
    }

    fn bytes(self) -> Result<&'a [u8], Malformed> {
        if let Self::Bytes(bytes) = self { Ok(bytes) } else { Err(Malformed) }
    }

    fn text(self) -> Result<Cow<'a, str>, Malformed> {
        std::str::from_utf8(self.bytes()?).map(Cow::Borrowed).map_err(|_| Malformed)
    }
}

/// Takes a varint, of at most ten bytes.
fn take_varint(rest: &mut &[u8]) -> Result<u64, Malformed> {
    let mut value = 0_u64;
    for shift in (0..70).step_by(7) {
        let (&byte, behind) = rest.split_first().ok_or(Malformed)?;
        *rest = behind;
        value |= u64::from(byte & 0x7F) << shift;
        if byte < 0x80 {
            return Ok(value);
        }
    }
    Err(Malformed)
}

fn take<'a>(rest: &mut &'a [u8], length: u64) -> Result<&'a [u8], Malformed> {
    let length = usize::try_from(length).map_err(|_| Malformed)?;
    let (taken, behind) = rest.split_at_checked(length).ok_or(Malformed)?;
    *rest = behind;
    Ok(taken)
}

/// Calls `each` for every field of a message, with its number.
fn fields<'a>(
    mut message: &'a [u8],
    mut each: impl FnMut(u64, Value<'a>) -> Result<(), Malformed>,
) -> Result<(), Malformed> {
    while !message.is_empty() {
        let key = take_varint(&mut message)?;
        let value = match key & 7 {
            0 => Value::Number(take_varint(&mut message)?),
            1 => take(&mut message, 8).map(|_| Value::Fixed)?,
            2 => {
                let length = take_varint(&mut message)?;
                Value::Bytes(take(&mut message, length)?)
            }
            5 => take(&mut message, 4).map(|_| Value::Fixed)?,
            _ => return Err(Malformed), // groups, long gone
        };
        each(key >> 3, value)?;
    }
    Ok(())
}

/// Takes the next reply and the length before it.
pub(super) fn next<'a>(rest: &mut &'a [u8]) -> Result<Reply<'a>, Malformed> {
    let length = take_varint(rest)?;
    let message = take(rest, length)?;
    if message.is_empty() {
        return Ok(Reply::Ping);
    }
    let mut reply = Reply::Other;
    fields(message, |field, value| {
        match field {
            2 => reply = Reply::Error(word(value.bytes()?, 1, 2)?),
            4 => reply = push(value.bytes()?)?,
            5 => reply = connected(value.bytes()?)?,
            6 => reply = subscribed(value.bytes()?)?,
            _ => {}
        }
        Ok(())
    })?;
    Ok(reply)
}

fn push(message: &[u8]) -> Result<Reply<'_>, Malformed> {
    let mut reply = Reply::Other;
    fields(message, |field, value| {
        match field {
            4 => reply = Reply::Publication(publication(value.bytes()?)?),
            7 => reply = Reply::Unsubscribed(word(value.bytes()?, 2, 3)?),
            11 => reply = Reply::Disconnected(word(value.bytes()?, 1, 2)?),
            _ => {}
        }
        Ok(())
    })?;
    Ok(reply)
}

/// A session has a client: without one this is none.
fn connected(message: &[u8]) -> Result<Reply<'_>, Malformed> {
    let mut reply = Err(Malformed);
    fields(message, |field, _| {
        if field == 1 {
            reply = Ok(Reply::Connected);
        }
        Ok(())
    })?;
    reply
}

fn subscribed(message: &[u8]) -> Result<Reply<'_>, Malformed> {
    let mut result = Subscribed::default();
    fields(message, |field, value| {
        match field {
            6 => result.epoch = value.text()?,
            7 => result.publications.push(publication(value.bytes()?)?),
            8 => result.recovered = value.number()? != 0,
            9 => result.offset = value.number()?,
            _ => {}
        }
        Ok(())
    })?;
    Ok(Reply::Subscribed(result))
}

fn publication(message: &[u8]) -> Result<Publication<'_>, Malformed> {
    let mut result = Publication::default();
    fields(message, |field, value| {
        match field {
            4 => result.data = Cow::Borrowed(value.bytes()?),
            6 => result.offset = value.number()?,
            _ => {}
        }
        Ok(())
    })?;
    Ok(result)
}

/// A code and a reason, in these fields.
fn word(message: &[u8], code: u64, reason: u64) -> Result<Word<'_>, Malformed> {
    let mut result = Word { code: 0, reason: Cow::Borrowed("") };
    fields(message, |field, value| {
        if field == code {
            result.code = u32::try_from(value.number()?).map_err(|_| Malformed)?;
        } else if field == reason {
            result.reason = value.text()?;
        }
        Ok(())
    })?;
    Ok(result)
}

#[cfg(test)]
mod tests {
    use super::super::tests::{all, publication as message, word as said};
    use super::super::{Format, replies};
    use super::*;
    use throng::mem::Rng;

    fn written(join: &Join<'_>) -> Vec<u8> {
        let mut out = b"left over".to_vec();
        join.write(&mut out, Format::Protobuf);
        out
    }

    /// A message with one field.
    fn field(number: u64, value: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        bytes(&mut out, number, value);
        out
    }

    fn count(field: u64, value: u64) -> Vec<u8> {
        let mut out = Vec::new();
        number(&mut out, field, value);
        out
    }

    fn frame(replies: &[Vec<u8>]) -> Vec<u8> {
        let mut out = Vec::new();
        for reply in replies {
            varint(&mut out, reply.len() as u64);
            out.extend_from_slice(reply);
        }
        out
    }

    #[test]
    fn commands_are_written_to_the_byte() {
        let join = Join { token: "", channel: "ab", returns: false, cursor: b"" };
        let connect = [4, 0x08, 1, 0x22, 0];
        let subscribe = [8, 0x08, 2, 0x2A, 4, 0x0A, 2, b'a', b'b'];
        assert_eq!(written(&join), [&connect[..], &subscribe].concat());
        assert_eq!(written(&Join { token: "t", channel: "", ..join }), [7, 0x08, 1, 0x22, 3, 0x0A, 1, b't']);
        let recover = [17, 0x08, 2, 0x2A, 13, 0x0A, 1, b'a', 0x18, 1, 0x32, 1, b'e', 0x38, 0xAC, 0x02, 0x50, 1];
        let join = Join { channel: "a", returns: true, cursor: b"e-300", ..join };
        assert_eq!(written(&join), [&connect[..], &recover].concat());
    }

    #[test]
    fn replies_are_read_whatever_else_they_hold() {
        let publication = |data: &[u8], offset| [field(4, data), field(5, b"?"), count(6, offset)].concat();
        let error = [count(1, 103), field(2, b"no"), count(3, 1)].concat();
        let subscribed = [
            count(3, 1),
            field(6, b"ep"),
            field(7, &publication(b"a", 3)),
            field(7, &publication(b"b", 4)),
            count(8, 1),
            count(9, 300),
            vec![0x9D, 0x01, 1, 2, 3, 4],
            vec![0x99, 0x01, 1, 2, 3, 4, 5, 6, 7, 8],
        ];
        let pushed = |number, value: &[u8]| field(4, &[field(2, b"chan"), field(number, value)].concat());
        let bytes = frame(&[
            [count(1, 1), field(5, &[field(1, b"client"), count(7, 25), count(8, 1)].concat())].concat(),
            [count(1, 2), field(6, &subscribed.concat())].concat(),
            pushed(4, &publication(&[0, 255], 5)),
            Vec::new(),
            [count(1, 3), field(2, &error)].concat(),
            pushed(5, b""),
            pushed(7, &[count(2, 2500), field(3, b"state")].concat()),
            pushed(11, &[count(1, 3001), field(2, b"shutdown")].concat()),
            [count(1, 2), field(6, b"")].concat(),
        ]);
        let publications = vec![message(b"a", 3), message(b"b", 4)];
        let expected = [
            Reply::Connected,
            Reply::Subscribed(Subscribed { epoch: "ep".into(), offset: 300, recovered: true, publications }),
            Reply::Publication(message(&[0, 255], 5)),
            Reply::Ping,
            Reply::Error(said(103, "no")),
            Reply::Other,
            Reply::Unsubscribed(said(2500, "state")),
            Reply::Disconnected(said(3001, "shutdown")),
            Reply::Subscribed(Subscribed::default()),
        ];
        assert_eq!(all(Format::Protobuf, &bytes), expected);
        // A frame that is cut gives no reply that it does not hold whole.
        for cut in 0..bytes.len() {
            let whole = replies(Format::Protobuf, &bytes[..cut]).map_while(Result::ok).collect::<Vec<_>>();
            assert_eq!(whole[..], expected[..whole.len()], "cut at {cut}");
            assert!(whole.len() < expected.len(), "cut at {cut}");
        }
    }

    #[test]
    fn what_is_no_reply_is_told() {
        let endless = [&[0xFF; 10][..], &[1]].concat();
        let wrong_type = frame(&[field(6, &count(6, 1))]);
        let no_client = frame(&[field(5, b"")]);
        for bad in [&[5, 1][..], &[2, 0x0B, 0], &endless, &wrong_type, &no_client] {
            let mut seen = replies(Format::Protobuf, bad);
            assert_eq!((seen.next(), seen.next()), (Some(Err(Malformed)), None), "{bad:02x?}");
        }
        let mut rng = Rng::new(7);
        for _ in 0..20_000 {
            let bytes: Vec<u8> = (0..rng.below(40)).map(|_| rng.below(48) as u8).collect();
            assert!(replies(Format::Protobuf, &bytes).count() <= bytes.len());
        }
    }
}
