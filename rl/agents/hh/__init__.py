"""Anthropic's helpful and harmless assistant (Bai et al., arXiv 2204.05862), stage by stage.

A prompt is distilled into the model; a preference model, pretrained on votes, learns from helpful
and harmless comparisons; PPO follows it, in rounds that collect anew; what is unlike the prompts it
knows is refused. The formulas are core/dialogue's. Read first: comparisons.py, then
preference_model.py; agent.py puts the stages together.
"""
