"""Pretrain the demo's base model on composed music."""
