/// A colour of 8 bits a channel.
public struct RGBColor: Hashable, Sendable {
  /// Red, from 0 to 255.
  public let red: UInt8
  /// Green, from 0 to 255.
  public let green: UInt8
  /// Blue, from 0 to 255.
  public let blue: UInt8

  /// A colour of three channels.
  public init(red: UInt8, green: UInt8, blue: UInt8) {
    self.red = red
    self.green = green
    self.blue = blue
  }

  /// Reads `#RRGGBB`; `nil` for any other text.
  public init?(hex: String) {
    let digits = Array(hex.utf8.dropFirst())
    guard hex.utf8.first == UInt8(ascii: "#"), digits.count == 6 else { return nil }
    var channels: [UInt8] = []
    for start in [0, 2, 4] {
      let pair = String(decoding: digits[start..<start + 2], as: UTF8.self)
      guard pair.allSatisfy(\.isHexDigit), let value = UInt8(pair, radix: 16) else { return nil }
      channels.append(value)
    }
    self.init(red: channels[0], green: channels[1], blue: channels[2])
  }

  /// The colour as `#RRGGBB`.
  public var hex: String {
    "#" + hexadecimal([red, green, blue]).uppercased()
  }
}
