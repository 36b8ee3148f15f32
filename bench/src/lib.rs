//! Measurements of Homeport.
