//! Frames of the node protocol: a preamble once per connection, then length-capped frames.
