//! A zip archive, unpacked into a folder: what is in it may have been made to harm us. The only file that knows the library.
