//! What clients of Centrifugo's protocol call and send, for the application to see to.

use super::{AnsweredKind, Centrifugo, ConnId, Message};
use crate::adapter::centrifugo::codes::ErrorCode;
use crate::adapter::centrifugo::protocol;
use crate::adapter::centrifugo::session::{ClientCall, Effect, Output, Session};
use crate::server::{Gone, Handle};
use crate::topic::Publication;
use std::fmt;

/// The codes that an application may give its errors, as Centrifugo's documents have it: the SDKs have others for
/// themselves.
const CODES: std::ops::RangeInclusive<u16> = 400..=1999;

/// A client of Centrifugo's protocol.
#[derive(Debug)]
pub struct Caller<'a> {
    id: ConnId,
    client: String,
    user: &'a str,
}

impl<'a> Caller<'a> {
    /// Its connection, for [`Handle::say`].
    pub fn id(&self) -> ConnId {
        self.id
    }

    /// Its client id: what the SDK knows itself by.
    pub fn client(&self) -> &str {
        &self.client
    }

    /// Whose it is, as its connection token says; empty for an anonymous one.
    pub fn user(&self) -> &'a str {
        self.user
    }
}

/// A call: what an SDK's `rpc` asks. See [`Centrifugo::on_rpc`].
#[derive(Debug)]
pub struct Rpc<'a> {
    caller: Caller<'a>,
    method: &'a str,
    data: Message<'a>,
    command: u32,
}

impl<'a> Rpc<'a> {
    /// Who asks.
    pub fn caller(&self) -> &Caller<'a> {
        &self.caller
    }

    /// The method; may be empty.
    pub fn method(&self) -> &'a str {
        self.method
    }

    /// With a client that speaks JSON, one JSON value as text, or nothing; with one that speaks Protobuf, bytes.
    pub fn data(&self) -> Message<'a> {
        self.data
    }

    /// What [`RpcAnswer::Later`] takes, and [`Handle::answer_rpc`] with it.
    pub fn token(&self) -> RpcToken {
        RpcToken { id: self.caller.id, command: self.command }
    }
}

/// Stands for a call that waits for its answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RpcToken {
    id: ConnId,
    command: u32,
}

/// The answer to a call. A client that speaks JSON gets text as a string and bytes as `{"base64":"..."}`, one that speaks
/// Protobuf the bytes as they are.
#[derive(Debug)]
#[non_exhaustive]
pub enum RpcAnswer {
    /// This, or an error.
    Now(Result<Publication, RpcError>),
    /// Somebody else answers: [`Handle::answer_rpc`], from any thread. Nothing is kept for it here; the SDKs give up after
    /// some seconds (5 s, unless they are told otherwise).
    Later(RpcToken),
}

impl From<Publication> for RpcAnswer {
    fn from(data: Publication) -> Self {
        Self::Now(Ok(data))
    }
}

impl From<RpcError> for RpcAnswer {
    fn from(error: RpcError) -> Self {
        Self::Now(Err(error))
    }
}

/// Why a call failed, as its client is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RpcError {
    code: u16,
    message: String,
}

impl RpcError {
    /// A code from 400 to 1999 of the application's own, and a message. Any other code is error 100, internal server error:
    /// the SDKs would take it for one of theirs.
    pub fn new(code: u16, message: impl Into<String>) -> Self {
        if CODES.contains(&code) { Self { code, message: message.into() } } else { ErrorCode::Internal.into() }
    }

    /// There is no such method: error 104, method not found.
    pub fn no_such_method() -> Self {
        ErrorCode::MethodNotFound.into()
    }
}

impl From<ErrorCode> for RpcError {
    fn from(code: ErrorCode) -> Self {
        Self { code: code.code(), message: code.text().to_owned() }
    }
}

impl fmt::Display for RpcError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.code, self.message)
    }
}

impl std::error::Error for RpcError {}

impl From<RpcError> for protocol::Error {
    fn from(RpcError { code, message }: RpcError) -> Self {
        Self { code: code.into(), message, temporary: code == ErrorCode::Internal.code() }
    }
}

type OnRpc = Box<dyn FnMut(&Rpc<'_>) -> RpcAnswer>;
type OnSend = Box<dyn FnMut(&Caller<'_>, Message<'_>)>;

/// The application's part, if it has one.
#[derive(Default)]
pub(super) struct Handlers {
    rpc: Option<OnRpc>,
    send: Option<OnSend>,
}

impl fmt::Debug for Handlers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handlers").field("rpc", &self.rpc.is_some()).field("send", &self.send.is_some()).finish()
    }
}

impl<S> Centrifugo<S> {
    /// Answers what clients call (an SDK's `rpc`). The handler runs on the worker's thread, as a
    /// [`Service`](crate::Service)'s methods do, and should return quickly; what takes longer is answered
    /// [later](RpcAnswer::Later). Default: error 108, not available.
    ///
    /// ```no_run
    /// # use throng::{Accept, Connection, Decision, Message, Request, Response, Service};
    /// # struct Mine;
    /// # impl Service for Mine {
    /// #     type State = ();
    /// #     fn open(&mut self, _: &Request<'_>) -> Decision<()> {
    /// #         Response::refuse(404, "connect to /connection/websocket").into()
    /// #     }
    /// #     fn message(&mut self, _: &mut Connection<'_, ()>, _: Message<'_>) {}
    /// # }
    /// use throng::{Centrifugo, Publication, RpcError, Server};
    ///
    /// let server = Server::new().start(|_| {
    ///     Centrifugo::new(Mine).on_rpc(|rpc| match rpc.method() {
    ///         "whoami" => Publication::from(rpc.caller().user()).into(),
    ///         _ => RpcError::no_such_method().into(),
    ///     })
    /// })?;
    /// server.run_until_signal(std::time::Duration::from_secs(5))?;
    /// # Ok::<(), throng::StartError>(())
    /// ```
    #[must_use]
    pub fn on_rpc(mut self, handler: impl FnMut(&Rpc<'_>) -> RpcAnswer + 'static) -> Self {
        self.rules.takes_calls = true;
        self.handlers.rpc = Some(Box::new(handler));
        self
    }

    /// Takes what clients send without wanting an answer (an SDK's `send`). Its data is as [`Rpc::data`] has it. Default:
    /// whoever sends is disconnected (3508, not available), since there is no reply to say so in.
    #[must_use]
    pub fn on_send(mut self, handler: impl FnMut(&Caller<'_>, Message<'_>) + 'static) -> Self {
        self.rules.takes_messages = true;
        self.handlers.send = Some(Box::new(handler));
        self
    }
}

impl Handlers {
    /// Sees to the calls among what a session wants.
    pub(super) fn see_to(&mut self, id: ConnId, session: &Session, output: &mut Output) {
        if !output.effects.iter().any(|effect| matches!(effect, Effect::Call(_))) {
            return;
        }
        let is_call = |effect: &mut Effect| matches!(effect, Effect::Call(_));
        for effect in output.effects.extract_if(.., is_call).collect::<Vec<_>>() {
            let Effect::Call(call) = effect else { continue };
            let caller = Caller { id, client: session.client(), user: session.user() };
            match (call, &mut self.rpc, &mut self.send) {
                (ClientCall::Rpc { id: command, method, data }, Some(handler), _) => {
                    let Some(data) = message(session, &data) else { continue };
                    match handler(&Rpc { caller, method: &method, data, command }) {
                        RpcAnswer::Now(answer) => answered(session, command, &answer, output),
                        RpcAnswer::Later(_) => {}
                    }
                }
                (ClientCall::Message(data), _, Some(handler)) => {
                    message(session, &data).into_iter().for_each(|data| handler(&caller, data));
                }
                // Nobody is there for it, and the session has said so.
                (ClientCall::Rpc { .. }, None, _) | (ClientCall::Message(_), _, None) => {}
            }
        }
    }
}

/// What a client's data is: JSON is UTF-8 throughout.
fn message<'a>(session: &Session, data: &'a [u8]) -> Option<Message<'a>> {
    match session.says_json() {
        true => std::str::from_utf8(data).ok().map(Message::Text),
        false => Some(Message::Binary(data)),
    }
}

/// Has a session reply to a call.
pub(super) fn answered(session: &Session, command: u32, answer: &Result<Publication, RpcError>, output: &mut Output) {
    let answer = answer.as_ref().map(|data| (data.kind, &*data.payload)).map_err(|error| error.clone().into());
    session.call_answered(command, answer, output);
}

impl<T> Handle<T> {
    /// Answers a call that was put off with [`RpcAnswer::Later`], once.
    ///
    /// # Errors
    ///
    /// [`Gone`] when the client has left.
    pub fn answer_rpc(&self, token: RpcToken, answer: Result<Publication, RpcError>) -> Result<(), Gone> {
        self.tell(token.id, token.command.into(), AnsweredKind::Called(answer))
    }

    /// Says something to one client of Centrifugo's protocol, outside of all channels: its SDK's `message` event. With any
    /// other connection nothing is done.
    ///
    /// # Errors
    ///
    /// As [`send`](Self::send).
    pub fn say(&self, id: ConnId, data: impl Into<Publication>) -> Result<(), Gone> {
        self.tell(id, 0, AnsweredKind::Said(data.into()))
    }
}
