import Foundation

extension PixelImage {
  /// Decodes a binary PGM (P5), PPM (P6) or PAM (P7) image of 8 bits a channel.
  ///
  /// These formats have no colour profile and no compression, so any machine reads the same pixels.
  /// Grey becomes equal red, green and blue; alpha is dropped.
  ///
  /// - Throws: ``PreprocessingError`` for other formats, deeper channels and incomplete data.
  public init(netpbm data: Data) throws(PreprocessingError) {
    let bytes = [UInt8](data)
    var header = NetpbmHeader(bytes)
    let (size, channels) = try header.read()
    let pixelCount = size.area
    guard bytes.count - header.position >= pixelCount * channels else {
      throw .notNetpbm("it ends before its last pixel")
    }
    var pixels = [UInt8](repeating: 255, count: pixelCount * 4)
    for index in 0..<pixelCount {
      let sample = header.position + index * channels
      let isColor = channels >= 3
      pixels[index * 4] = bytes[sample]
      pixels[index * 4 + 1] = bytes[sample + (isColor ? 1 : 0)]
      pixels[index * 4 + 2] = bytes[sample + (isColor ? 2 : 0)]
    }
    self.init(checked: size, bytesPerRow: size.width * 4, order: .rgba, bytes: pixels)
  }
}

/// Reads the text in front of the pixels.
private struct NetpbmHeader {
  let bytes: [UInt8]
  /// Index of the next byte; that of the first pixel after ``read()``.
  var position = 0

  init(_ bytes: [UInt8]) {
    self.bytes = bytes
  }

  /// Returns the size and the number of channels.
  mutating func read() throws(PreprocessingError) -> (PixelSize, Int) {
    let magic = nextWord()
    let fields: (width: Int, height: Int, channels: Int, maximum: Int)
    switch magic {
    case "P5", "P6":
      fields = (try number(), try number(), magic == "P5" ? 1 : 3, try number())
      position += 1
    case "P7": fields = try readTupleFields()
    default: throw .notNetpbm("it begins with neither P5, P6 nor P7")
    }
    guard fields.maximum == 255 else {
      throw .notNetpbm("its maximal value is \(fields.maximum); only 255 is read")
    }
    guard (1...4).contains(fields.channels) else {
      throw .notNetpbm("it has \(fields.channels) channels")
    }
    let size = PixelSize(width: fields.width, height: fields.height)
    try checkLayout(size, size.width * 4)
    return (size, fields.channels)
  }

  private mutating func readTupleFields() throws(PreprocessingError) -> (Int, Int, Int, Int) {
    var values: [String: Int] = [:]
    while true {
      let name = nextWord()
      switch name {
      case "ENDHDR":
        position += 1
        guard let width = values["WIDTH"], let height = values["HEIGHT"],
          let depth = values["DEPTH"], let maximum = values["MAXVAL"]
        else { throw .notNetpbm("its header lacks WIDTH, HEIGHT, DEPTH or MAXVAL") }
        return (width, height, depth, maximum)
      case "WIDTH", "HEIGHT", "DEPTH", "MAXVAL": values[name] = try number()
      case "TUPLTYPE": _ = nextWord()
      default: throw .notNetpbm("its header has the unknown field '\(name)'")
      }
    }
  }

  private mutating func number() throws(PreprocessingError) -> Int {
    let word = nextWord()
    guard let value = Int(word), value >= 0 else {
      throw .notNetpbm("its header has '\(word)' where a number belongs")
    }
    return value
  }

  /// Returns the next word, past white space and comments; empty at the end.
  private mutating func nextWord() -> String {
    let newline = UInt8(ascii: "\n")
    while position < bytes.count {
      if bytes[position] == UInt8(ascii: "#") {
        while position < bytes.count, bytes[position] != newline { position += 1 }
      } else if bytes[position] <= UInt8(ascii: " ") {
        position += 1
      } else {
        break
      }
    }
    let start = position
    while position < bytes.count, bytes[position] > UInt8(ascii: " "), position - start < 64 {
      position += 1
    }
    return String(decoding: bytes[start..<position], as: UTF8.self)
  }
}
