//! Homeport.
