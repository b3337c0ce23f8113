//! The worker's folder: one worker for each, jobs in hand, and what a killed one has left.
