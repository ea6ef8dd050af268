//! A terminal's settings: a line editor changes them, and whoever ends the program in its midst has to put them back.

use super::syscall;
use std::io;

/// The settings of the terminal at standard input, as they were.
#[derive(Clone, Debug)]
pub struct TerminalSettings(libc::termios);

impl TerminalSettings {
    /// Reads them (tcgetattr(3)); fails where standard input is no terminal.
    pub fn of_stdin() -> io::Result<Self> {
        // SAFETY: all zeros are a termios; it is read only after tcgetattr has written it.
        let mut settings: libc::termios = unsafe { std::mem::zeroed() };
        // `settings` is valid for writing.
        syscall!(tcgetattr(libc::STDIN_FILENO, &raw mut settings))?;
        Ok(Self(settings))
    }

    /// Puts them back at once, whatever is still to be written (tcsetattr(3)).
    pub fn restore(&self) -> io::Result<()> {
        // The settings are only read.
        syscall!(tcsetattr(libc::STDIN_FILENO, libc::TCSANOW, &raw const self.0)).map(drop)
    }
}
