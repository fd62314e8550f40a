import MViTKit
import Testing

@Suite("Coordinates")
struct CoordinateTests {
  private let stored = PixelSize(width: 40, height: 30)

  @Test(
    "of stored corners turn upright by the EXIF orientation",
    arguments: [
      // Where the centre of the stored top left pixel lies, from the definition of tag 274.
      (ImageOrientation.up, 0.5, 0.5), (.upMirrored, 39.5, 0.5), (.down, 39.5, 29.5),
      (.downMirrored, 0.5, 29.5), (.leftMirrored, 0.5, 0.5), (.right, 29.5, 0.5),
      (.rightMirrored, 29.5, 39.5), (.left, 0.5, 39.5),
    ])
  func corners(orientation: ImageOrientation, x: Double, y: Double) {
    let corner = orientation.upright(PlanePoint(x: 0.5, y: 0.5), storedSize: stored)
    #expect(corner == PlanePoint(x: x, y: y))
    // The pixel to its right tells mirrored from turned.
    let next = orientation.upright(PlanePoint(x: 1.5, y: 0.5), storedSize: stored)
    #expect(orientation.swapsSides == (next.x == corner.x))
  }

  @Test("turn back", arguments: ImageOrientation.allCases)
  func roundTrip(orientation: ImageOrientation) {
    for position in [PlanePoint(x: 0, y: 0), PlanePoint(x: 3.25, y: 29), PlanePoint(x: 40, y: 30)] {
      let upright = orientation.upright(position, storedSize: stored)
      #expect(orientation.stored(upright, storedSize: stored) == position)
    }
  }

  @Test("agree with the pixels that the preprocessor makes", arguments: ImageOrientation.allCases)
  func agreesWithPixels(orientation: ImageOrientation) throws {
    let size = PixelSize(width: 5, height: 3)
    let values = (0..<15).flatMap { (value: UInt8) -> [UInt8] in
      [value, value * 3, value * 7, 0]
    }
    let image = try PixelImage(size: size, order: .rgba, bytes: values)
    let upright = orientation.uprightSize(of: size)
    let copy = Preprocessor(
      Preprocessing(inputSize: upright, fit: .crop, resize: nil, resample: .bilinear))
    let turned = try copy.run(image, orientation: orientation, order: .rgba).image
    for y in 0..<3 {
      for x in 0..<5 {
        let at = orientation.upright(
          PlanePoint(x: Double(x) + 0.5, y: Double(y) + 0.5), storedSize: size)
        let found = Int(at.y) * upright.width + Int(at.x)
        #expect(turned.bytes[found * 4] == UInt8(y * 5 + x))
      }
    }
  }

  @Test("of a view that shows the whole image")
  func fit() throws {
    let mapping = DisplayMapping(
      view: PlaneSize(width: 100, height: 100), storedSize: stored, contentMode: .fit)
    #expect(mapping.imageBox == PlaneBox(left: 0, top: 12.5, right: 100, bottom: 87.5))
    #expect(mapping.view(fromImage: PlanePoint(x: 20, y: 15)) == PlanePoint(x: 50, y: 50))
    #expect(mapping.image(fromView: PlanePoint(x: 50, y: 12.5)) == PlanePoint(x: 20, y: 0))
    #expect(mapping.image(fromView: PlanePoint(x: 50, y: 12.4)) == nil)
    #expect(mapping.image(fromView: PlanePoint(x: 100, y: 50)) == PlanePoint(x: 40, y: 15))
    #expect(mapping.image(fromView: PlanePoint(x: 100.1, y: 50)) == nil)
  }

  @Test("of a view that the image fills")
  func fill() throws {
    let mapping = DisplayMapping(
      view: PlaneSize(width: 60, height: 60), storedSize: stored, contentMode: .fill)
    #expect(mapping.imageBox == PlaneBox(left: -10, top: 0, right: 70, bottom: 60))
    #expect(mapping.image(fromView: PlanePoint(x: 0, y: 0)) == PlanePoint(x: 5, y: 0))
    #expect(mapping.view(fromImage: PlanePoint(x: 0, y: 0)) == PlanePoint(x: -10, y: 0))
    #expect(mapping.image(fromView: PlanePoint(x: -1, y: 0)) == nil)
  }

  @Test("of a mirrored view of a photo on its side")
  func mirrored() throws {
    let mapping = DisplayMapping(
      view: PlaneSize(width: 60, height: 80), storedSize: stored, orientation: .right,
      contentMode: .fit, isMirrored: true)
    #expect(mapping.imageBox == PlaneBox(left: 0, top: 0, right: 60, bottom: 80))
    // Stored top left is upright top right, which the mirror shows at the top left.
    #expect(mapping.view(fromStored: PlanePoint(x: 0, y: 0)) == PlanePoint(x: 0, y: 0))
    #expect(mapping.stored(fromView: PlanePoint(x: 0, y: 0)) == PlanePoint(x: 0, y: 0))
  }

  @Test(
    "of views come back, whatever the orientation and the aspect ratio",
    arguments: ImageOrientation.allCases)
  func viewRoundTrip(orientation: ImageOrientation) throws {
    for view in [PlaneSize(width: 300, height: 500), PlaneSize(width: 500.5, height: 31)] {
      for size in [stored, PixelSize(width: 7, height: 1000), PixelSize(width: 1000, height: 7)] {
        for (mode, isMirrored) in [(DisplayMapping.ContentMode.fit, false), (.fill, true)] {
          let mapping = DisplayMapping(
            view: view, storedSize: size, orientation: orientation, contentMode: mode,
            isMirrored: isMirrored)
          let middle = PlanePoint(x: view.width / 2 - 1, y: view.height / 2 + 1)
          guard let found = mapping.stored(fromView: middle) else { continue }
          let back = mapping.view(fromStored: found)
          #expect(abs(back.x - middle.x) < 1e-9 && abs(back.y - middle.y) < 1e-9)
          #expect(found.x >= 0 && found.x <= Double(size.width))
          #expect(found.y >= 0 && found.y <= Double(size.height))
        }
      }
    }
  }

  @Test("of a map's cells agree with the map laid back on the image", arguments: Fit.allCases)
  func cells(fit: Fit) throws {
    for image in [PixelSize(width: 30, height: 22), PixelSize(width: 9, height: 41)] {
      let preprocessing = Preprocessing(
        inputSize: PixelSize(width: 16, height: 12), fit: fit, resize: .shortestEdge(14),
        resample: .bilinear)
      let placement = try preprocessing.placement(of: image)
      let map = try ClassMap(size: PixelSize(width: 8, height: 6), classes: Array(0..<48))
      let mapping = MapMapping(placement: placement, mapSize: map.size)
      let laidBack = map.unfitted(placement, fill: -1)
      for y in 0..<image.height {
        for x in 0..<image.width {
          let position = PlanePoint(x: Double(x) + 0.5, y: Double(y) + 0.5)
          let found = mapping.classIndex(at: position, in: map) ?? -1
          #expect(found == Int(laidBack[x, y]))
        }
      }
      for y in 0..<6 {
        for x in 0..<8 {
          let position = mapping.image(fromMap: PlanePoint(x: Double(x) + 0.5, y: Double(y) + 0.5))
          guard let cell = mapping.cell(atImage: position) else { continue }
          #expect(cell == (x, y))
        }
      }
    }
  }

  @Test("of the whole map overhang an image that was padded")
  func mapBox() throws {
    let placement = Placement(
      imageSize: PixelSize(width: 20, height: 10), resizedSize: PixelSize(width: 8, height: 4),
      inputSize: PixelSize(width: 8, height: 8))
    let mapping = MapMapping(placement: placement, mapSize: PixelSize(width: 2, height: 2))
    #expect(mapping.mapBox == PlaneBox(left: 0, top: -5, right: 20, bottom: 15))
    #expect(mapping.cell(atImage: PlanePoint(x: 19, y: 9))?.x == 1)
    #expect(mapping.cell(atImage: PlanePoint(x: 20, y: 5)) == nil)
  }
}
