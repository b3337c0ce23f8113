//! Set-ups that were downloaded before, unpacked on the disk.
