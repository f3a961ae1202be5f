//! The admin token: whoever shows it may administer the cluster.

use std::fmt;
use std::path::Path;

use super::SecretsError;
use super::files;

/// The file of the admin token.
pub const ADMIN_TOKEN_FILE: &str = "admin.token";
const DIGITS: usize = 64;

/// An admin token. It is never printed.
#[derive(Clone)]
pub struct AdminToken(String);

impl fmt::Debug for AdminToken {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("AdminToken(secret)")
    }
}

impl AdminToken {
    /// Draws a new one.
    ///
    /// # Errors
    /// The system has no random bytes.
    pub fn fresh() -> Result<AdminToken, SecretsError> {
        Ok(AdminToken(files::hex(&files::random::<{ DIGITS / 2 }>()?)))
    }

    /// Reads a file of mode 0600.
    ///
    /// # Errors
    /// A file that is missing, too open or not a token.
    pub fn read(path: &Path) -> Result<AdminToken, SecretsError> {
        let token = files::read(path)?.and_then(|text| parse(&text));
        token.ok_or_else(|| SecretsError::NotAToken { path: path.to_owned() })
    }

    /// The text for an `Authorization: Bearer` header.
    pub fn secret(&self) -> &str {
        &self.0
    }

    /// Whether somebody showed this token. The time that it takes tells nothing of where they differ: what is compared are
    /// hashes, which BLAKE3 compares in constant time.
    pub fn is(&self, shown: &str) -> bool {
        blake3::hash(shown.as_bytes()) == blake3::hash(self.0.as_bytes())
    }

    /// The content of its file: one line, so that a shell can put it into a header.
    pub(super) fn line(&self) -> String {
        format!("{}\n", self.0)
    }
}

fn parse(text: &str) -> Option<AdminToken> {
    let digits = text.trim();
    let is_token = digits.len() == DIGITS && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
    is_token.then(|| AdminToken(digits.to_owned()))
}
