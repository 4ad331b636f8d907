"""Qualities of service: what the topics offer and ask for, and who does not fit."""

from __future__ import annotations

from rclpy.node import Node
from rclpy.qos import (
    DurabilityPolicy,
    HistoryPolicy,
    QoSCompatibility,
    QoSProfile,
    ReliabilityPolicy,
    qos_check_compatible,
)
from rclpy.qos_overriding_options import QoSOverridingOptions


def camera_qos(depth: int = 1) -> QoSProfile:
    """Of subscriptions to a camera: takes what reliable and best-effort publishers offer, only the newest."""
    return QoSProfile(depth=depth, history=HistoryPolicy.KEEP_LAST, reliability=ReliabilityPolicy.BEST_EFFORT)


def result_qos() -> QoSProfile:
    """Of published results: reliable, because that fits subscribers of both kinds."""
    return QoSProfile(depth=5, history=HistoryPolicy.KEEP_LAST, reliability=ReliabilityPolicy.RELIABLE)


def latched_qos() -> QoSProfile:
    """Of a message that is published once and also reaches those who subscribe later."""
    return QoSProfile(
        depth=1,
        history=HistoryPolicy.KEEP_LAST,
        reliability=ReliabilityPolicy.RELIABLE,
        durability=DurabilityPolicy.TRANSIENT_LOCAL,
    )


def overridable() -> QoSOverridingOptions:
    """Lets `qos_overrides./topic.publisher.reliability` and the like change a topic's QoS at start."""
    return QoSOverridingOptions.with_default_policies()


def publisher_problems(node: Node, topic: str, message_type: str, asked: QoSProfile) -> list[str]:
    """Why each publisher of a topic cannot be heard by a subscription.

    Args:
        node: to look around with.
        topic: full name, remapped.
        message_type: such as "sensor_msgs/msg/Image".
        asked: QoS of the subscription.

    Returns:
        One sentence per publisher that does not fit; nobody publishing at all is one, too.
    """
    publishers = node.get_publishers_info_by_topic(topic)
    if not publishers:
        return [f"nobody publishes {topic}"]
    problems = []
    for publisher in publishers:
        who = f"{publisher.node_namespace.rstrip('/')}/{publisher.node_name}"
        if publisher.topic_type != message_type:
            problems.append(f"{who} publishes {topic} as {publisher.topic_type}, not {message_type}")
            continue
        compatible, reason = qos_check_compatible(publisher.qos_profile, asked)
        if compatible == QoSCompatibility.ERROR:
            problems.append(f"{who} publishes {topic} with incompatible QoS: {reason.strip().rstrip(';')}")
    return problems
