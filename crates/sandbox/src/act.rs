//! A step of a script, acted out on the socket: whole answers, halves, drips, and none at all.

use std::io;
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::board::{Board, End, Turn};
use crate::script::Manner;
use crate::serve::Next;
use crate::wire;

/// Between half an answer and the RST after it, so that the half arrives.
const BEFORE_RESET: Duration = Duration::from_millis(20);

/// Acts out a turn. The board hears of its end before the client can.
pub(crate) async fn act(
    board: &Board,
    stream: &mut TcpStream,
    out: &mut Vec<u8>,
    turn: &Turn,
    recipient_json: &str,
) -> io::Result<Next> {
    if !turn.wait.is_zero() && timeout(turn.wait, client_gone(stream)).await.is_ok() {
        board.finish(turn, End::ClientGone);
        return Ok(Next::Close);
    }
    if turn.is_plain() {
        wire::ok(out, recipient_json);
        board.finish(turn, End::Answer);
        stream.write_all(out).await?;
        return Ok(Next::Keep(0));
    }
    let step = turn.step();
    match step.manner {
        Manner::Hang => {
            client_gone(stream).await;
            board.finish(turn, End::ClientGone);
            return Ok(Next::Close);
        }
        Manner::Drop | Manner::Close => {
            board.finish(turn, End::Silence);
            return Ok(Next::Close);
        }
        Manner::Reset | Manner::ResetBefore => {
            board.finish(turn, End::Silence);
            return Ok(Next::Reset);
        }
        _ => {}
    }
    let endless = step.manner == Manner::Endless;
    let (start, plain) = wire::scripted(out, step, recipient_json, endless);
    let half = start + (out.len() - start) / 2;
    board.finish(turn, End::Answer);
    match &step.manner {
        Manner::Drip(every) => drip(stream, out, *every).await?,
        Manner::DripBody(every) => {
            stream.write_all(&out[..start]).await?;
            drip(stream, &out[start..], *every).await?;
        }
        Manner::Cut => {
            stream.write_all(&out[..half]).await?;
            return Ok(Next::Close);
        }
        Manner::ResetMid => {
            stream.write_all(&out[..half]).await?;
            tokio::time::sleep(BEFORE_RESET).await;
            return Ok(Next::Reset);
        }
        Manner::Endless => endlessly(stream, &out[..start], &out[start..]).await?,
        Manner::Raw(bytes) => {
            stream.write_all(bytes).await?;
            return Ok(Next::Close);
        }
        _ => stream.write_all(out).await?,
    }
    Ok(if plain { Next::Keep(0) } else { Next::Close })
}

/// Returns when the client has closed or reset the connection.
async fn client_gone(stream: &TcpStream) {
    if matches!(stream.peek(&mut [0]).await, Ok(1..)) {
        // It sends the next request before this one's answer: it waits, too.
        std::future::pending::<()>().await;
    }
}

async fn drip(stream: &mut TcpStream, bytes: &[u8], every: Duration) -> io::Result<()> {
    for byte in bytes {
        stream.write_all(&[*byte]).await?;
        tokio::time::sleep(every).await;
    }
    Ok(())
}

/// The body as one chunk, then blanks for ever: JSON that never ends and never becomes wrong.
async fn endlessly(stream: &mut TcpStream, head: &[u8], body: &[u8]) -> io::Result<()> {
    stream.write_all(head).await?;
    let mut chunk = format!("{:x}\r\n", body.len()).into_bytes();
    chunk.extend_from_slice(body);
    chunk.extend_from_slice(b"\r\n");
    stream.write_all(&chunk).await?;
    let blanks = format!("4000\r\n{:16384}\r\n", "");
    loop {
        stream.write_all(blanks.as_bytes()).await?;
    }
}
