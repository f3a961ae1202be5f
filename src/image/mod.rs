//! Images: labels and seals. Pure: bytes in, bytes or a typed error out.
