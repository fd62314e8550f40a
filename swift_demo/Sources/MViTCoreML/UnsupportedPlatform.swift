#if os(watchOS)
#error("MViTCoreML needs Vision, which watchOS does not have. MViTKit works there.")
#endif
