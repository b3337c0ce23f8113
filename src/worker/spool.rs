//! Finished results on the disk, until the server has taken them.
