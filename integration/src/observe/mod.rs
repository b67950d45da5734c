//! What the lab looks at: captured packets, ESP opened in user space, kernel states and counters.

pub mod capture;
pub mod drops;
pub mod esp;
pub mod leak;
pub mod packet;
pub mod pushes;
pub mod states;
