/// One field of a protobuf message.
struct ProtobufField {
  let number: Int
  /// The value of a varint, or 0.
  let integer: UInt64
  /// The bytes of a text, a message or packed numbers.
  let bytes: ArraySlice<UInt8>

  var text: String { String(decoding: bytes, as: UTF8.self) }
}

/// Splits a protobuf message into its fields, without knowing what they mean.
struct ProtobufReader: Sequence, IteratorProtocol {
  private var bytes: ArraySlice<UInt8>
  /// Whether all bytes so far made sense.
  private(set) var isSound = true

  init(_ bytes: ArraySlice<UInt8>) {
    self.bytes = bytes
  }

  /// Returns the next field; `nil` at the end and where the message is damaged.
  mutating func next() -> ProtobufField? {
    guard isSound, !bytes.isEmpty else { return nil }
    if let tag = varint(), let field = field(number: Int(tag >> 3), wireType: tag & 7) {
      return field
    }
    isSound = false
    return nil
  }

  /// All varints of a packed field.
  static func packed(_ bytes: ArraySlice<UInt8>) -> [UInt64] {
    var reader = ProtobufReader(bytes)
    var values: [UInt64] = []
    while let value = reader.varint() { values.append(value) }
    return values
  }

  private mutating func field(number: Int, wireType: UInt64) -> ProtobufField? {
    switch wireType {
    case 0: return varint().map { ProtobufField(number: number, integer: $0, bytes: []) }
    case 1: return take(8).map { ProtobufField(number: number, integer: 0, bytes: $0) }
    case 2:
      guard let length = varint(), length <= UInt64(bytes.count) else { return nil }
      return take(Int(length)).map { ProtobufField(number: number, integer: 0, bytes: $0) }
    case 5: return take(4).map { ProtobufField(number: number, integer: 0, bytes: $0) }
    default: return nil
    }
  }

  private mutating func take(_ count: Int) -> ArraySlice<UInt8>? {
    guard bytes.count >= count else { return nil }
    defer { bytes = bytes.dropFirst(count) }
    return bytes.prefix(count)
  }

  private mutating func varint() -> UInt64? {
    var value: UInt64 = 0
    for shift in stride(from: UInt64(0), to: 64, by: 7) {
      guard let byte = bytes.popFirst() else { return nil }
      value |= UInt64(byte & 0x7f) << shift
      if byte < 0x80 { return value }
    }
    return nil
  }
}
